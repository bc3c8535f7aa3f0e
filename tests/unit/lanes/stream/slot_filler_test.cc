#include "cluster/lanes/stream/slot_filler.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::lanes {
namespace {

constexpr uint64_t kBlockBytes = 100;

// Slots in plain memory, for any attachment.
class FakeHost final : public LaneHost {
 public:
  absl::StatusOr<std::vector<PinnedBytes>> OpenRead(AttachmentId, LeaseId, uint32_t,
                                                    uint32_t) override {
    return absl::UnimplementedError("nobody reads");
  }
  absl::StatusOr<PinnedSlot> OpenWrite(AttachmentId, ReservationId, uint32_t block) override {
    if (block > 2) return Refusal(absl::StatusCode::kFailedPrecondition, "NOT_GRANTED", "no slot");
    std::vector<uint8_t>& slot = slots[block];
    slot.resize(kBlockBytes);
    return PinnedSlot{.bytes = slot, .pin = pin, .memory = memory};
  }
  absl::Status Written(AttachmentId, ReservationId, uint32_t block, uint64_t bytes) override {
    EXPECT_EQ(pin.use_count(), 1) << "the pin is dropped before the block counts as written";
    written[block] = bytes;
    return absl::OkStatus();
  }

  absl::Status CopyToDevice(std::span<const uint8_t> host, std::span<uint8_t> device) override {
    if (device_refuses) return absl::InternalError("the device refuses");
    EXPECT_EQ(memory, MemoryKind::kDevice);
    copied_bytes += host.size();
    std::copy(host.begin(), host.end(), device.begin());
    return absl::OkStatus();
  }

  MemoryKind memory = MemoryKind::kHost;
  bool device_refuses = false;
  uint64_t copied_bytes = 0;
  std::map<uint32_t, std::vector<uint8_t>> slots;
  std::map<uint32_t, uint64_t> written;
  std::shared_ptr<int> pin = std::make_shared<int>(0);
};

class SlotFillerTest : public ::testing::Test {
 protected:
  absl::Status Send(uint32_t block, uint64_t offset, const std::string& data,
                    uint64_t attachment = 5) {
    v1::WriteRequest message;
    message.set_attachment_id(attachment);
    message.set_reservation_id(6);
    message.set_block(block);
    message.set_offset_bytes(offset);
    message.set_data(data);
    const std::string bytes = message.SerializeAsString();
    const std::span<const uint8_t> piece(reinterpret_cast<const uint8_t*>(bytes.data()),
                                         bytes.size());
    return filler_.Take({&piece, 1});
  }

  FakeHost host_;
  int admitted_ = 0;
  std::vector<uint8_t> staging_;
  SlotFiller filler_{host_,
                     [this](AttachmentId id) {
                       ++admitted_;
                       return id.value == 5 ? absl::OkStatus() : absl::NotFoundError("unknown");
                     },
                     [this] {
                       staging_.resize(limits::kStreamChunkBytesMax);
                       return std::span<uint8_t>(staging_);
                     }};
};

TEST_F(SlotFillerTest, ChunksInOrderMakeAWholeBlock) {
  ASSERT_TRUE(Send(1, 0, std::string(60, 'a')).ok());
  EXPECT_TRUE(host_.written.empty());
  ASSERT_TRUE(Send(1, 60, std::string(40, 'b')).ok());
  EXPECT_EQ(host_.written, (std::map<uint32_t, uint64_t>{{1, kBlockBytes}}));
  EXPECT_EQ(host_.slots[1][59], 'a');
  EXPECT_EQ(host_.slots[1][60], 'b');
  ASSERT_TRUE(Send(0, 0, std::string(100, 'c'), 0).ok());
  EXPECT_TRUE(filler_.Finish().ok());
  EXPECT_EQ(filler_.bytes_written(), 200u);
  EXPECT_EQ(admitted_, 1);
}

TEST_F(SlotFillerTest, AGapARepeatOrAnotherBlockMidwayIsRefused) {
  ASSERT_TRUE(Send(1, 0, std::string(60, 'a')).ok());
  for (const auto& [block, offset] :
       {std::pair(1u, 0u), {1u, 59u}, {1u, 61u}, {2u, 60u}, {2u, 0u}}) {
    EXPECT_EQ(RefusalReason(Send(block, offset, "x")), "WRITE_OUT_OF_ORDER") << block << offset;
  }
  EXPECT_TRUE(host_.written.empty());
}

TEST_F(SlotFillerTest, BytesBeyondTheBlockNeverTouchTheSlot) {
  ASSERT_TRUE(Send(1, 0, std::string(60, 'a')).ok());
  EXPECT_EQ(RefusalReason(Send(1, 60, std::string(41, 'b'))), "BLOCK_OVERFLOW");
  EXPECT_EQ(host_.slots[1][60], 0);
}

TEST_F(SlotFillerTest, ABlockThatEndsHalfwayIsNotWritten) {
  ASSERT_TRUE(Send(1, 0, std::string(60, 'a')).ok());
  EXPECT_EQ(RefusalReason(filler_.Finish()), "BLOCK_INCOMPLETE");
  EXPECT_TRUE(host_.written.empty());
}

TEST_F(SlotFillerTest, NothingIsOpenedForAnAttachmentThatIsNotAdmitted) {
  EXPECT_EQ(Send(1, 0, "x", 7).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(host_.slots.empty());
}

TEST_F(SlotFillerTest, ASlotInDeviceMemoryIsFilledThroughStagingMemory) {
  host_.memory = MemoryKind::kDevice;
  ASSERT_TRUE(Send(1, 0, std::string(60, 'a')).ok());
  ASSERT_TRUE(Send(1, 60, std::string(40, 'b')).ok());
  EXPECT_EQ(host_.copied_bytes, kBlockBytes);
  EXPECT_EQ(host_.slots[1][59], 'a');
  EXPECT_EQ(host_.slots[1][60], 'b');
  EXPECT_EQ(host_.written, (std::map<uint32_t, uint64_t>{{1, kBlockBytes}}));
}

TEST_F(SlotFillerTest, HostMemoryNeedsNoStaging) {
  ASSERT_TRUE(Send(1, 0, std::string(100, 'a')).ok());
  EXPECT_TRUE(staging_.empty());
  EXPECT_EQ(host_.copied_bytes, 0u);
}

TEST_F(SlotFillerTest, ABlockThatTheDeviceDidNotTakeIsNotWritten) {
  host_.memory = MemoryKind::kDevice;
  host_.device_refuses = true;
  EXPECT_TRUE(absl::IsInternal(Send(1, 0, std::string(100, 'a'))));
  EXPECT_TRUE(host_.written.empty());
}

TEST_F(SlotFillerTest, TheHostsRefusalIsPassedOn) {
  EXPECT_EQ(RefusalReason(Send(3, 0, "x")), "NOT_GRANTED");
}

}  // namespace
}  // namespace reprise::lanes
