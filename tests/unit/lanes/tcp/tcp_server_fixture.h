// A server of the tcp lane over memory, and callers of it: the lane's, and by hand.
//
// Thread safety: one thread; whoever speaks by hand has a socket of its own.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/tcp/data_socket.h"
#include "cluster/lanes/tcp/tcp_lane.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "gtest/gtest.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::lanes {

inline constexpr AttachmentId kAttachment(31);
inline absl::Time Soon() {
  return absl::Now() + absl::Seconds(30);
}
inline const MonotonicDeadline kSoon = MonotonicDeadline::After(absl::Minutes(2));

class TcpServerTest : public ::testing::Test {
 protected:
  void Serve(TcpServer::Options options) {
    server_.reset();
    server_ = *TcpServer::Create(std::move(options));
    key_ = *server_->Welcome(kAttachment);
  }
  void Serve() { Serve({.host = &host_}); }

  std::unique_ptr<TcpLane> LaneOf(AttachmentId attachment, std::optional<TcpKey> key) const {
    return *TcpLane::Create(
        {.host = "127.0.0.1", .port = server_->port(), .attachment = attachment, .key = key});
  }
  std::unique_ptr<TcpLane> Connect() const { return LaneOf(kAttachment, key_); }
  // Whether calls get as far as the host, which knows no such lease.
  bool Serves(AttachmentId attachment, std::optional<TcpKey> key) const {
    const absl::Status status = Read(*LaneOf(attachment, key), LeaseId(666), 1, 4096);
    EXPECT_TRUE(absl::IsNotFound(status) || IsLaneDown(status)) << status;
    return absl::IsNotFound(status);
  }
  // A caller that speaks the protocol by hand.
  tcp::DataSocket Knock() const {
    return tcp::DataSocket(*tcp::Dial("127.0.0.1", server_->port(), kSoon));
  }
  tcp::DataSocket Dial() const {
    tcp::DataSocket socket = Knock();
    EXPECT_TRUE(socket.Send(tcp::Hello{kAttachment}, kSoon).ok());
    EXPECT_TRUE(socket.ReceiveOnly<tcp::Outcome>(kSoon)->status.ok());
    return socket;
  }
  // Whether the shard still answers on it.
  static bool Answers(tcp::DataSocket& socket) {
    return socket.Send(tcp::Read{LeaseId(666), 0, 1, 4096}, kSoon).ok() &&
           socket.ReceiveOnly<tcp::Outcome>(kSoon).ok();
  }
  bool AwaitConnections(size_t count) const {
    const absl::Time end = Soon();
    while (absl::Now() < end) {
      if (server_->use().connections == count) return true;
      std::this_thread::yield();
    }
    return false;
  }
  static absl::Status Read(TcpLane& lane, LeaseId lease, uint32_t blocks, uint64_t block_bytes) {
    reprise::testing::CheckingSink sink({.blocks = blocks, .block_bytes = block_bytes});
    return lane.Read({lease, 0, blocks, block_bytes}, sink, Soon());
  }

  reprise::testing::MemoryLaneHost host_{kAttachment};
  std::unique_ptr<TcpServer> server_;
  std::optional<TcpKey> key_;
};

}  // namespace reprise::lanes
