// The limit: blocking sockets, a header of three words, writev and recv, nothing else.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <list>
#include <thread>

#include "proto/types/status_macros.h"
#include "tests/bench/stream/bench_end.h"

namespace reprise::bench {
namespace {

struct Header {
  uint64_t put = 0;
  uint64_t block_bytes = 0;
  uint64_t blocks = 0;
};

// False at the end of the stream.
bool ReceiveAll(int socket, void* to, size_t bytes) {
  for (auto* at = static_cast<uint8_t*>(to); bytes > 0;) {
    const ssize_t got = recv(socket, at, bytes, MSG_WAITALL);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

void SendAll(int socket, const void* from, size_t bytes) {
  for (auto* at = static_cast<const uint8_t*>(from); bytes > 0;) {
    const ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL);
    REPRISE_CHECK(sent > 0);
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
}

void NoDelay(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

class SocketCaller final : public Caller {
 public:
  explicit SocketCaller(const sockaddr_in& address) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    REPRISE_CHECK(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
                  0);
    NoDelay(socket_);
  }
  ~SocketCaller() override { close(socket_); }

  void Get(const Shape& shape, std::span<uint8_t> to) override {
    const Header header{.block_bytes = shape.block_bytes, .blocks = shape.blocks};
    SendAll(socket_, &header, sizeof(header));
    for (uint32_t i = 0; i < shape.blocks; ++i) {
      REPRISE_CHECK(ReceiveAll(socket_, to.data() + i * shape.block_bytes, shape.block_bytes));
    }
  }
  void Put(const Shape& shape, std::span<const uint8_t> from) override {
    const Header header{.put = 1, .block_bytes = shape.block_bytes, .blocks = shape.blocks};
    SendAll(socket_, &header, sizeof(header));
    SendAll(socket_, from.data(), shape.blocks * shape.block_bytes);
    uint8_t done = 0;
    REPRISE_CHECK(ReceiveAll(socket_, &done, 1));
  }

 private:
  const int socket_;
};

class Socket final : public End {
 public:
  explicit Socket(Slots slots) : slots_(slots), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    address_ = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address_);
    auto* const address = reinterpret_cast<sockaddr*>(&address_);
    REPRISE_CHECK(bind(listener_, address, length) == 0 && listen(listener_, 16) == 0 &&
                  getsockname(listener_, address, &length) == 0);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~Socket() override {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : serving_) thread.join();
    close(listener_);
  }
  const char* name() const override { return "raw socket"; }
  std::unique_ptr<Caller> Connect() override { return std::make_unique<SocketCaller>(address_); }

 private:
  void Accept() {
    while (true) {
      const int socket = accept(listener_, nullptr, nullptr);
      if (socket < 0) return;
      NoDelay(socket);
      serving_.emplace_back([this, socket] { Serve(socket); });
    }
  }
  void Serve(int socket) {
    Header header;
    while (ReceiveAll(socket, &header, sizeof(header))) {
      const size_t bytes = header.block_bytes * header.blocks;
      if (header.put == 0) {
        SendAll(socket, slots_.stored.data(), bytes);
        continue;
      }
      if (!ReceiveAll(socket, slots_.reserved.data(), bytes)) break;
      const uint8_t done = 1;
      SendAll(socket, &done, 1);
    }
    close(socket);
  }

  const Slots slots_;
  const int listener_;
  sockaddr_in address_ = {};
  std::list<std::thread> serving_;
  std::thread acceptor_;
};

}  // namespace

std::unique_ptr<End> SocketEnd(Slots slots) {
  return std::make_unique<Socket>(slots);
}

}  // namespace reprise::bench
