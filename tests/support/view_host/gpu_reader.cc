// A caller of a view server in a process of its own: main SOCKET ATTACHMENT LEASE BLOCKS BYTES.
// Reads the lease into device memory, prints how that went, and stays, with everything mapped,
// until it is killed.
#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "cluster/lanes/view/view_lane.h"

namespace {

class DeviceSink final : public reprise::lanes::BlockSink {
 public:
  reprise::lanes::MemoryKind memory() const override { return reprise::lanes::MemoryKind::kDevice; }
  std::span<uint8_t> Buffer(uint32_t) override { return {}; }
  absl::Status Complete(uint32_t) override { return absl::InternalError("host bytes came"); }
  absl::Status Deliver(uint32_t, std::span<const uint8_t>) override {
    return absl::InternalError("host bytes came");
  }
  absl::Status DeliverDevice(uint32_t, std::span<const std::span<const uint8_t>>) override {
    return absl::OkStatus();
  }
};

}  // namespace

int main(int, char** argv) {
  using namespace reprise;
  const absl::Time soon = absl::Now() + absl::Seconds(60);
  auto lane = lanes::ViewLane::Connect(
      {.socket = argv[1], .attachment = AttachmentId(std::stoull(argv[2]))}, soon);
  absl::Status status = lane.status();
  if (lane.ok()) {
    DeviceSink sink;
    status = (*lane)->Read({.lease = LeaseId(std::stoull(argv[3])),
                            .blocks = static_cast<uint32_t>(std::stoul(argv[4])),
                            .block_bytes = std::stoull(argv[5])},
                           sink, soon);
  }
  std::printf("%s\n", status.ok() ? "read" : std::string(status.message()).c_str());
  std::fflush(stdout);
  while (true) ::pause();
}
