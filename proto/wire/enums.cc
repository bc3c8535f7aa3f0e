#include "proto/wire/enums.h"

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

// The numbers of messages and types agree; these are the proof.
static_assert(static_cast<int>(AttentionKind::kMla) == v1::ATTENTION_KIND_MLA);
static_assert(static_cast<int>(DataType::kI8) == v1::DATA_TYPE_I8);
static_assert(static_cast<int>(DataType::kBf16) == v1::DATA_TYPE_BF16);
static_assert(static_cast<int>(Tier::kHbm) == v1::TIER_HBM);
static_assert(static_cast<int>(Tier::kNvme) == v1::TIER_NVME);
static_assert(static_cast<int>(LaneKind::kStream) == v1::LANE_KIND_STREAM);
static_assert(static_cast<int>(LaneKind::kTcp) == v1::LANE_KIND_TCP);
static_assert(static_cast<int>(ReserveOutcome::kNoSpace) == v1::RESERVE_OUTCOME_NO_SPACE);
static_assert(static_cast<int>(MissReason::kNone) == v1::MISS_REASON_NONE);
static_assert(static_cast<int>(MissReason::kPending) == v1::MISS_REASON_PENDING);
static_assert(static_cast<int>(HintOutcome::kApplied) == v1::HINT_OUTCOME_APPLIED);
static_assert(static_cast<int>(HintOutcome::kMissing) == v1::HINT_OUTCOME_MISSING);

// `value` as a T when it lies in [first, last] of the message's enumeration.
template <typename T>
absl::StatusOr<T> InRange(int value, T first, T last, absl::string_view field) {
  if (value >= static_cast<int>(first) && value <= static_cast<int>(last)) {
    return static_cast<T>(value);
  }
  return Refusal(absl::StatusCode::kInvalidArgument, "ENUM_VALUE",
                 absl::StrCat(field, " = ", value, " is not known here: send a value from ",
                              static_cast<int>(first), " to ", static_cast<int>(last)));
}

}  // namespace

v1::AttentionKind ToMessage(AttentionKind kind) {
  return static_cast<v1::AttentionKind>(kind);
}
v1::DataType ToMessage(DataType type) {
  return static_cast<v1::DataType>(type);
}
v1::Tier ToMessage(Tier tier) {
  return static_cast<v1::Tier>(tier);
}
v1::LaneKind ToMessage(LaneKind kind) {
  return static_cast<v1::LaneKind>(kind);
}
v1::ReserveOutcome ToMessage(ReserveOutcome outcome) {
  return static_cast<v1::ReserveOutcome>(outcome);
}
v1::MissReason ToMessage(MissReason reason) {
  return static_cast<v1::MissReason>(reason);
}
v1::HintOutcome ToMessage(HintOutcome outcome) {
  return static_cast<v1::HintOutcome>(outcome);
}

AttentionKind FromMessage(v1::AttentionKind kind) {
  return v1::AttentionKind_IsValid(kind) ? static_cast<AttentionKind>(kind)
                                         : AttentionKind::kUnspecified;
}

DataType FromMessage(v1::DataType type) {
  return v1::DataType_IsValid(type) ? static_cast<DataType>(type) : DataType::kUnspecified;
}

absl::StatusOr<Tier> FromMessage(v1::Tier tier, absl::string_view field) {
  return InRange(tier, Tier::kHbm, Tier::kNvme, field);
}

absl::StatusOr<LaneKind> FromMessage(v1::LaneKind kind, absl::string_view field) {
  return InRange(kind, LaneKind::kStream, LaneKind::kTcp, field);
}

absl::StatusOr<ReserveOutcome> FromMessage(v1::ReserveOutcome outcome, absl::string_view field) {
  return InRange(outcome, ReserveOutcome::kPresent, ReserveOutcome::kNoSpace, field);
}

absl::StatusOr<MissReason> FromMessage(v1::MissReason reason, absl::string_view field) {
  return InRange(reason, MissReason::kNone, MissReason::kPending, field);
}

absl::StatusOr<HintOutcome> FromMessage(v1::HintOutcome outcome, absl::string_view field) {
  return InRange(outcome, HintOutcome::kApplied, HintOutcome::kMissing, field);
}

}  // namespace reprise::wire
