#include "proto/wire/enums.h"

#include <gtest/gtest.h>

#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

TEST(EnumsTest, EveryKnownValueSurvivesBothWays) {
  for (int i = v1::Tier_MIN + 1; i <= v1::Tier_MAX; ++i) {
    EXPECT_EQ(ToMessage(*FromMessage(static_cast<v1::Tier>(i), "tier")), i);
  }
  for (int i = v1::LaneKind_MIN + 1; i <= v1::LaneKind_MAX; ++i) {
    EXPECT_EQ(ToMessage(*FromMessage(static_cast<v1::LaneKind>(i), "lane")), i);
  }
  for (int i = v1::ReserveOutcome_MIN + 1; i <= v1::ReserveOutcome_MAX; ++i) {
    EXPECT_EQ(ToMessage(*FromMessage(static_cast<v1::ReserveOutcome>(i), "outcome")), i);
  }
  for (int i = v1::MissReason_MIN + 1; i <= v1::MissReason_MAX; ++i) {
    EXPECT_EQ(ToMessage(*FromMessage(static_cast<v1::MissReason>(i), "reason")), i);
  }
  for (int i = v1::HintOutcome_MIN + 1; i <= v1::HintOutcome_MAX; ++i) {
    EXPECT_EQ(ToMessage(*FromMessage(static_cast<v1::HintOutcome>(i), "outcome")), i);
  }
  for (int i = v1::AttentionKind_MIN; i <= v1::AttentionKind_MAX; ++i) {
    EXPECT_EQ(ToMessage(FromMessage(static_cast<v1::AttentionKind>(i))), i);
  }
  for (int i = v1::DataType_MIN; i <= v1::DataType_MAX; ++i) {
    EXPECT_EQ(ToMessage(FromMessage(static_cast<v1::DataType>(i))), i);
  }
}

TEST(EnumsTest, NamesAgreeWithNumbers) {
  EXPECT_EQ(v1::MissReason_Name(ToMessage(MissReason::kNeverStored)), "MISS_REASON_NEVER_STORED");
  EXPECT_EQ(v1::MissReason_Name(ToMessage(MissReason::kTokensDiffer)), "MISS_REASON_TOKENS_DIFFER");
  EXPECT_EQ(v1::MissReason_Name(ToMessage(MissReason::kOtherSpec)), "MISS_REASON_OTHER_SPEC");
  EXPECT_EQ(v1::ReserveOutcome_Name(ToMessage(ReserveOutcome::kPending)),
            "RESERVE_OUTCOME_PENDING");
  EXPECT_EQ(v1::HintOutcome_Name(ToMessage(HintOutcome::kClipped)), "HINT_OUTCOME_CLIPPED");
  EXPECT_EQ(v1::HintOutcome_Name(ToMessage(HintOutcome::kDeferred)), "HINT_OUTCOME_DEFERRED");
  EXPECT_EQ(v1::Tier_Name(ToMessage(Tier::kDram)), "TIER_DRAM");
  EXPECT_EQ(v1::LaneKind_Name(ToMessage(LaneKind::kView)), "LANE_KIND_VIEW");
  EXPECT_EQ(v1::DataType_Name(ToMessage(DataType::kF8E5M2)), "DATA_TYPE_F8_E5M2");
}

TEST(EnumsTest, UnspecifiedAndUnknownNumbersAreRefusedByName) {
  for (int number : {0, 5, 99, -1}) {
    const absl::Status status =
        FromMessage(static_cast<v1::LaneKind>(number), "hello.lanes").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << number;
    EXPECT_EQ(RefusalReason(status), "ENUM_VALUE");
    EXPECT_NE(status.message().find("hello.lanes"), absl::string_view::npos);
    EXPECT_NE(status.message().find(std::to_string(number)), absl::string_view::npos);
  }
  EXPECT_EQ(FromMessage(static_cast<v1::DataType>(77)), DataType::kUnspecified);
  EXPECT_EQ(FromMessage(static_cast<v1::AttentionKind>(-3)), AttentionKind::kUnspecified);
}

}  // namespace
}  // namespace reprise::wire
