#include "service/shard/counted_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace reprise::shard {
namespace {

using ::testing::Contains;
using ::testing::Pair;

// Slots of 100 bytes in "device" memory, which the host alone may copy.
class DeviceHost final : public lanes::LaneHost {
 public:
  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId, LeaseId lease, uint32_t,
                                                           uint32_t blocks) override {
    if (!lease) return absl::NotFoundError("no such lease");
    return std::vector<lanes::PinnedBytes>(blocks, {.bytes = slot});
  }
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId, ReservationId, uint32_t) override {
    return lanes::PinnedSlot{.bytes = slot};
  }
  absl::Status Written(AttachmentId, ReservationId reservation, uint32_t, uint64_t) override {
    return reservation ? absl::OkStatus() : absl::NotFoundError("no such reservation");
  }
  absl::Status CopyToHost(std::span<const uint8_t>, std::span<uint8_t>) override {
    ++copies;
    return absl::OkStatus();
  }
  absl::Status CopyToDevice(std::span<const uint8_t>, std::span<uint8_t>) override {
    ++copies;
    return absl::OkStatus();
  }
  std::vector<uint8_t> slot = std::vector<uint8_t>(100);
  int copies = 0;
};

TEST(CountedHostTest, CountsWhatWasCarriedAndNotWhatWasOpened) {
  DeviceHost host;
  CountedHost counted(host);
  EXPECT_EQ(counted.OpenRead(AttachmentId(1), LeaseId(1), 0, 3)->size(), 3u);
  EXPECT_TRUE(counted.OpenWrite(AttachmentId(1), ReservationId(1), 0).ok());
  for (const auto& [name, value] : counted.use().Named(LaneKind::kView)) EXPECT_EQ(value, 0u);
  counted.ReadOut(2, 200);
  EXPECT_TRUE(counted.Written(AttachmentId(1), ReservationId(1), 0, 100).ok());
  EXPECT_FALSE(counted.Written(AttachmentId(1), ReservationId(), 0, 100).ok());
  const auto named = counted.use().Named(LaneKind::kView);
  EXPECT_THAT(named, Contains(Pair("lane_view_blocks_read_total", 2u)));
  EXPECT_THAT(named, Contains(Pair("lane_view_bytes_read_total", 200u)));
  EXPECT_THAT(named, Contains(Pair("lane_view_blocks_written_total", 1u)));
  EXPECT_THAT(named, Contains(Pair("lane_view_bytes_written_total", 100u)));
}

TEST(CountedHostTest, DeviceMemoryIsCopiedByTheHostBehindIt) {
  DeviceHost host;
  CountedHost counted(host);
  std::vector<uint8_t> bytes(100);
  EXPECT_TRUE(counted.CopyToHost(host.slot, bytes).ok());
  EXPECT_TRUE(counted.CopyToDevice(bytes, host.slot).ok());
  EXPECT_EQ(host.copies, 2);
}

}  // namespace
}  // namespace reprise::shard
