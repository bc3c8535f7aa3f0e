#include "proto/wire/events.h"

#include <gtest/gtest.h>

#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

BlockEvent Stored() {
  BlockEvent event{.kind = BlockEvent::Kind::kStored,
                   .tenant = Tenant{"default"},
                   .session_id = "user-1",
                   .tier = Tier::kDram};
  event.fingerprint.bytes.fill(7);
  event.keys.resize(3);
  for (size_t i = 0; i < event.keys.size(); ++i) {
    event.keys[i].bytes.fill(static_cast<uint8_t>(i + 1));
  }
  return event;
}

TEST(EventsTest, StoredRemovedAndSnapshotEndSurviveBothWays) {
  BlockEvent removed = Stored();
  removed.kind = BlockEvent::Kind::kRemoved;
  removed.session_id.clear();
  const BlockEvent end{.kind = BlockEvent::Kind::kSnapshotEnd};
  uint64_t sequence = 40;
  for (const BlockEvent& event : {Stored(), removed, end}) {
    const absl::StatusOr<WatchedMessage> got = FromMessage(ToMessage(event, ++sequence));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->sequence, sequence);
    EXPECT_EQ(std::get<BlockEvent>(got->what), event);
  }
}

TEST(EventsTest, HeartbeatsSurviveBothWays) {
  const ShardHeartbeat beat{.used_bytes = 1ull << 40, .capacity_bytes = 3, .draining = true};
  const absl::StatusOr<WatchedMessage> got = FromMessage(ToMessage(beat, 9));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(std::get<ShardHeartbeat>(got->what), beat);
}

TEST(EventsTest, DamagedMessagesAreRefusedByField) {
  v1::WatchBlocksResponse message = ToMessage(Stored(), 1);
  message.mutable_stored()->set_keys("short");
  EXPECT_EQ(RefusalReason(FromMessage(message).status()), "KEYS_LENGTH");
  message = ToMessage(Stored(), 1);
  message.mutable_stored()->set_fingerprint("");
  EXPECT_EQ(RefusalReason(FromMessage(message).status()), "FINGERPRINT_LENGTH");
  message = ToMessage(Stored(), 1);
  message.mutable_stored()->set_tier(v1::TIER_UNSPECIFIED);
  EXPECT_EQ(RefusalReason(FromMessage(message).status()), "ENUM_VALUE");
  EXPECT_EQ(RefusalReason(FromMessage(v1::WatchBlocksResponse()).status()), "EVENT_UNSET");
}

}  // namespace
}  // namespace reprise::wire
