#include "proto/wire/hints.h"

#include <algorithm>
#include <cstdint>

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/enums.h"

namespace reprise::wire {
namespace {

// A time that no clock here overflows with: what is longer is cut further on anyway.
absl::Duration TtlOf(uint64_t ttl_ms) {
  const auto most = static_cast<uint64_t>(absl::ToInt64Milliseconds(limits::kClaimTtlMax)) * 2;
  return absl::Milliseconds(std::min(ttl_ms, most));
}

// Rounded up, so that a short time is not none.
uint64_t MillisecondsOf(absl::Duration ttl) {
  const absl::Duration whole =
      absl::Ceil(std::max(ttl, absl::ZeroDuration()), absl::Milliseconds(1));
  return static_cast<uint64_t>(absl::ToInt64Milliseconds(whole));
}

}  // namespace

void ToMessage(const Hint& hint, v1::HintRequest& request) {
  request.set_unless_claimed(hint.unless_claimed);
  switch (hint.verb) {
    case HintVerb::kRetain:
      request.mutable_retain()->set_claim_id(hint.claim_id);
      request.mutable_retain()->set_priority(hint.priority);
      request.mutable_retain()->set_ttl_ms(MillisecondsOf(hint.ttl));
      break;
    case HintVerb::kPin:
      request.mutable_pin()->set_claim_id(hint.claim_id);
      request.mutable_pin()->set_ttl_ms(MillisecondsOf(hint.ttl));
      break;
    case HintVerb::kRelease:
      request.mutable_release()->set_claim_id(hint.claim_id);
      break;
    case HintVerb::kEvict:
      request.mutable_evict()->set_first_block(hint.first_block);
      break;
    case HintVerb::kDemote:
      request.mutable_demote()->set_first_block(hint.first_block);
      break;
  }
}

absl::StatusOr<Hint> FromMessage(const v1::HintRequest& request) {
  switch (request.action_case()) {
    case v1::HintRequest::kRetain:
      return Hint{.verb = HintVerb::kRetain,
                  .claim_id = request.retain().claim_id(),
                  .priority = request.retain().priority() == 0 ? limits::kClaimPriority
                                                               : request.retain().priority(),
                  .ttl = TtlOf(request.retain().ttl_ms()),
                  .unless_claimed = request.unless_claimed()};
    case v1::HintRequest::kPin:
      return Hint{.verb = HintVerb::kPin,
                  .claim_id = request.pin().claim_id(),
                  .ttl = TtlOf(request.pin().ttl_ms()),
                  .unless_claimed = request.unless_claimed()};
    case v1::HintRequest::kRelease:
      return Hint{.verb = HintVerb::kRelease, .claim_id = request.release().claim_id()};
    case v1::HintRequest::kEvict:
      return Hint{.verb = HintVerb::kEvict, .first_block = request.evict().first_block()};
    case v1::HintRequest::kDemote:
      return Hint{.verb = HintVerb::kDemote, .first_block = request.demote().first_block()};
    case v1::HintRequest::ACTION_NOT_SET:
      break;
  }
  return Refusal(absl::StatusCode::kInvalidArgument, "HINT_ACTION",
                 "action is unset, or one that this shard does not know: send retain, pin, "
                 "release, evict or demote");
}

v1::HintResponse ToMessage(const HintResult& result) {
  v1::HintResponse message;
  message.set_outcome(ToMessage(result.outcome));
  message.set_blocks(result.blocks);
  message.set_ttl_ms(MillisecondsOf(result.ttl));
  message.set_why(result.why);
  return message;
}

absl::StatusOr<HintResult> FromMessage(const v1::HintResponse& message) {
  REPRISE_ASSIGN_OR_RETURN(const HintOutcome outcome, FromMessage(message.outcome(), "outcome"));
  return HintResult{.outcome = outcome,
                    .blocks = message.blocks(),
                    .ttl = TtlOf(message.ttl_ms()),
                    .why = message.why()};
}

}  // namespace reprise::wire
