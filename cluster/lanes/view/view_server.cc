#include "cluster/lanes/view/view_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::StatusOr<std::string> RandomName() {
  std::array<char, 16> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return absl::UnavailableError("view lane: no random bytes");
  }
  return absl::StrCat("@reprise-view-",
                      absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size())));
}

// What one connection has open. The pins keep the slots where they are.
struct Opening {
  ReservationId reservation;     // of a writer
  std::vector<uint32_t> blocks;  // of a writer: those that were opened
  uint64_t block_bytes = 0;
  bool writable = false;
  std::vector<std::shared_ptr<const void>> pins;
  absl::flat_hash_map<uint64_t, ExtentView> extents;  // by id
};

}  // namespace

// Runs the conversation of one caller on a thread of its own.
class ViewServer::Connection {
 public:
  Connection(const Options& options, view::DeviceShares& shares, Descriptor socket)
      : options_(options),
        shares_(shares),
        socket_(std::move(socket)),
        thread_([this] { Run(); }) {}
  ~Connection() {
    Shutdown();
    thread_.join();
  }

  void Shutdown() { socket_.Shutdown(); }
  // The caller hears that this is over; what it says is still heard, so that its pins live until it
  // is gone.
  void HangUp() { socket_.ShutdownSending(); }
  bool finished() const { return finished_.load(std::memory_order_acquire); }
  AttachmentId attachment() const {
    return AttachmentId(attachment_.load(std::memory_order_acquire));
  }

 private:
  void Run() {
    // Why a conversation ended is the caller's to know; here it only ends.
    Converse().IgnoreError();
    opening_ = Opening();
    socket_.Shutdown();
    finished_.store(true, std::memory_order_release);
  }

  absl::Status Converse() {
    REPRISE_RETURN_IF_ERROR(socket_.CheckPeer());
    REPRISE_ASSIGN_OR_RETURN(
        const view::Hello hello,
        socket_.ReceiveOnly<view::Hello>(MonotonicDeadline::After(limits::kViewHelloTimeout)));
    attachment_.store(hello.attachment.value, std::memory_order_release);
    REPRISE_RETURN_IF_ERROR(Answer(view::Outcome{absl::OkStatus()}));
    while (true) {
      const bool open = !opening_.pins.empty();
      absl::StatusOr<view::Received> received = socket_.Receive(
          MonotonicDeadline::After(open ? limits::kViewOpeningAgeMax : limits::kViewIdleMax));
      if (!received.ok()) return received.status();
      REPRISE_RETURN_IF_ERROR(
          std::visit([this](const auto& message) { return Handle(message); }, received->message));
    }
  }

  absl::Status Handle(const view::OpenRead& request) {
    opening_ = Opening{.block_bytes = request.block_bytes};
    absl::StatusOr<std::vector<PinnedBytes>> opened =
        request.blocks == 0 || request.blocks > limits::kPromptBlocksMax
            ? absl::InvalidArgumentError("view lane: blocks is out of range")
            : options_.host->OpenRead(attachment(), request.lease, request.first, request.blocks);
    view::Places places{opened.status(), {}};
    for (size_t i = 0; opened.ok() && i < opened->size(); ++i) {
      PinnedBytes& block = (*opened)[i];
      places.status =
          Open(block.bytes, block.memory, request.first + static_cast<uint32_t>(i), places);
      if (!places.status.ok()) break;
      opening_.pins.push_back(std::move(block.pin));
    }
    return Answer(std::move(places));
  }

  absl::Status Handle(const view::OpenWrite& request) {
    opening_ = Opening{
        .reservation = request.reservation, .block_bytes = request.block_bytes, .writable = true};
    view::Places places;
    for (const uint32_t block : request.blocks) {
      absl::StatusOr<PinnedSlot> slot =
          options_.host->OpenWrite(attachment(), request.reservation, block);
      places.status = slot.ok() ? Open(slot->bytes, slot->memory, block, places) : slot.status();
      if (!places.status.ok()) break;
      opening_.blocks.push_back(block);
      opening_.pins.push_back(std::move(slot->pin));
    }
    return Answer(std::move(places));
  }

  // Adds where one block lies to the answer and to what this connection may map.
  absl::Status Open(std::span<const uint8_t> bytes, MemoryKind memory, uint32_t block,
                    view::Places& places) {
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(block, bytes.size(), opening_.block_bytes));
    const std::optional<ExtentView> extent = options_.exporter->Export(bytes.data());
    if (!extent.has_value() || extent->memory != memory) {
      return LaneDown("view lane: the block's memory cannot be shared");
    }
    opening_.extents.emplace(extent->id, *extent);
    places.places.push_back({extent->id, extent->offset_bytes, memory});
    return absl::OkStatus();
  }

  absl::Status Handle(const view::MapExtent& request) {
    const auto it = opening_.extents.find(request.extent);
    if (it == opening_.extents.end()) {
      return Answer(view::Extent{
          absl::PermissionDeniedError("view lane: no block of this extent is open here")});
    }
    const ExtentView& extent = it->second;
    if (extent.memory == MemoryKind::kDevice) return Share(extent);
    // A read-only file, not just a promise to map it read-only.
    const std::string path = absl::StrCat("/proc/self/fd/", extent.fd);
    const Descriptor file(opening_.writable ? ::fcntl(extent.fd, F_DUPFD_CLOEXEC, 0)
                                            : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
      return Answer(view::Extent{LaneDown("view lane: the extent cannot be opened again")});
    return Answer(view::Extent{absl::OkStatus(), extent.extent_bytes}, file.get());
  }

  absl::Status Share(const ExtentView& extent) {
    absl::StatusOr<view::DeviceShares::Grant> grant = shares_.Share(extent, attachment());
    if (!grant.ok()) return Answer(view::Extent{.status = grant.status()});
    return Answer(view::Extent{absl::OkStatus(), extent.extent_bytes, grant->handle},
                  grant->tether.get());
  }

  absl::Status Handle(const view::Written& request) {
    const Opening written = std::exchange(opening_, Opening());
    absl::Status status;
    if (!written.writable || request.blocks > written.blocks.size()) {
      status = absl::InvalidArgumentError("view lane: more blocks were written than opened");
    }
    for (uint32_t i = 0; status.ok() && i < request.blocks; ++i) {
      status = options_.host->Written(attachment(), written.reservation, written.blocks[i],
                                      written.block_bytes);
    }
    return Answer(view::Outcome{std::move(status)});
  }

  absl::Status Handle(const view::Done& done) {
    const Opening read = std::exchange(opening_, Opening());
    if (read.writable) return absl::OkStatus();
    const uint64_t opened = read.pins.size();
    const uint64_t blocks = std::min<uint64_t>(done.blocks.value_or(opened), opened);
    options_.host->ReadOut(blocks, blocks * read.block_bytes);
    return absl::OkStatus();
  }

  // What only a shard says.
  template <typename Other>
  absl::Status Handle(const Other&) {
    return absl::InvalidArgumentError("view lane: a caller spoke as a shard");
  }

  absl::Status Answer(view::Message message, int descriptor = -1) {
    return socket_.Send(message, MonotonicDeadline::After(limits::kViewAnswerTimeout), descriptor);
  }

  const Options& options_;
  view::DeviceShares& shares_;
  view::ViewSocket socket_;
  Opening opening_;  // of the thread
  std::atomic<uint64_t> attachment_{0};
  std::atomic<bool> finished_{false};
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<ViewServer>> ViewServer::Create(Options options) {
  REPRISE_CHECK(options.host != nullptr && options.exporter != nullptr);
  REPRISE_ASSIGN_OR_RETURN(const std::string address, RandomName());
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path + 1, address.data() + 1, address.size() - 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  Descriptor listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener || ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0 ||
      ::listen(listener.get(), static_cast<int>(limits::kViewConnectionsMax)) != 0) {
    return absl::UnavailableError(absl::StrCat("view lane: cannot listen: ", std::strerror(errno)));
  }
  return std::unique_ptr<ViewServer>(new ViewServer(options, std::move(listener), address));
}

ViewServer::ViewServer(Options options, Descriptor listener, std::string address)
    : options_(options),
      shares_(*options.exporter),
      listener_(std::move(listener)),
      address_(std::move(address)),
      acceptor_([this] { Accept(); }) {}

ViewServer::~ViewServer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  ::shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  std::list<std::unique_ptr<Connection>> connections;
  {
    absl::MutexLock lock(&mu_);
    connections.swap(connections_);
  }
  for (const auto& connection : connections) connection->Shutdown();
}

// Until a caller, the end of a tether, or kPollMax.
void ViewServer::Wait() const {
  std::vector<pollfd> waiting{{listener_.get(), POLLIN, 0}};
  for (const int tether : shares_.Awaited()) waiting.push_back({tether, 0, 0});
  const auto wait = absl::ToTimespec(limits::kPollMax);
  ::ppoll(waiting.data(), waiting.size(), &wait, nullptr);
}

void ViewServer::Sweep() {
  shares_.Sweep([this](AttachmentId attachment) {
    absl::MutexLock lock(&mu_);
    return std::any_of(connections_.begin(), connections_.end(), [&](const auto& connection) {
      return connection->attachment() == attachment && !connection->finished();
    });
  });
}

void ViewServer::Accept() {
  const auto wait = absl::ToTimespec(limits::kPollMax);
  while (true) {
    Wait();
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      connections_.remove_if([](const auto& connection) { return connection->finished(); });
    }
    Sweep();
    Descriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      Admit(std::move(socket));
    } else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
      // Out of descriptors: the waiting caller has a deadline and another lane. Waits without
      // spinning.
      ::ppoll(nullptr, 0, &wait, nullptr);
    }
  }
}

void ViewServer::Admit(Descriptor socket) {
  absl::MutexLock lock(&mu_);
  if (stopping_ || connections_.size() >= limits::kViewConnectionsMax) return;
  connections_.push_back(std::make_unique<Connection>(options_, shares_, std::move(socket)));
}

void ViewServer::EndAttachment(AttachmentId attachment) {
  shares_.End(attachment);
  absl::MutexLock lock(&mu_);
  for (const auto& connection : connections_) {
    if (connection->attachment() == attachment) connection->HangUp();
  }
}

size_t ViewServer::connections() const {
  absl::MutexLock lock(&mu_);
  return static_cast<size_t>(
      std::count_if(connections_.begin(), connections_.end(),
                    [](const auto& connection) { return !connection->finished(); }));
}

}  // namespace reprise::lanes
