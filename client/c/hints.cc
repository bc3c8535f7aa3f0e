// The C ABI's hints.
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/c/reprise.h"
#include "client/cpp/client.h"
#include "proto/types/hints.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace rc = reprise::client;

namespace {

using reprise::Hint;
using reprise::HintOutcome;
using reprise::HintVerb;
using reprise::abi::Guard;
using reprise::abi::Keys;
using reprise::abi::TakeResult;
using reprise::abi::Timeout;
using reprise::abi::Unset;

static_assert(static_cast<int>(HintVerb::kRetain) == REPRISE_HINT_RETAIN);
static_assert(static_cast<int>(HintVerb::kPin) == REPRISE_HINT_PIN);
static_assert(static_cast<int>(HintVerb::kRelease) == REPRISE_HINT_RELEASE);
static_assert(static_cast<int>(HintVerb::kEvict) == REPRISE_HINT_EVICT);
static_assert(static_cast<int>(HintVerb::kDemote) == REPRISE_HINT_DEMOTE);
static_assert(static_cast<int>(HintOutcome::kApplied) == REPRISE_HINT_APPLIED);
static_assert(static_cast<int>(HintOutcome::kClipped) == REPRISE_HINT_CLIPPED);
static_assert(static_cast<int>(HintOutcome::kDeferred) == REPRISE_HINT_DEFERRED);
static_assert(static_cast<int>(HintOutcome::kMissing) == REPRISE_HINT_MISSING);

absl::StatusOr<Hint> HintOf(const reprise_hint& hint) {
  if (hint.verb < REPRISE_HINT_RETAIN || hint.verb > REPRISE_HINT_DEMOTE) {
    return reprise::Refusal(
        absl::StatusCode::kInvalidArgument, "HINT_VERB",
        absl::StrCat("hint.verb is ", hint.verb, ": give one of REPRISE_HINT_RETAIN to ",
                     "REPRISE_HINT_DEMOTE, ", REPRISE_HINT_RETAIN, " to ", REPRISE_HINT_DEMOTE));
  }
  return Hint{.verb = static_cast<HintVerb>(hint.verb),
              .claim_id = hint.claim_id != nullptr ? hint.claim_id : "",
              .priority = hint.priority != 0 ? hint.priority : reprise::limits::kClaimPriority,
              .ttl = absl::Microseconds(hint.ttl_us),
              .first_block = hint.first_block};
}

}  // namespace

extern "C" {

reprise_code reprise_hint_start(reprise_client* client, reprise_spec* spec, const char* session,
                                const uint8_t* keys, size_t key_count, const reprise_hint* hint,
                                int64_t timeout_us, reprise_op** op, reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (client == nullptr) return Unset("client");
    if (spec == nullptr) return Unset("spec");
    if (keys == nullptr && key_count > 0) return Unset("keys");
    if (hint == nullptr) return Unset("hint");
    if (op == nullptr) return Unset("op");
    rc::HintCall call{.spec = spec->spec,
                      .keys = Keys(keys, key_count),
                      .session = session != nullptr ? session : "",
                      .hint = {},
                      .timeout = Timeout(timeout_us)};
    REPRISE_ASSIGN_OR_RETURN(call.hint, HintOf(*hint));
    REPRISE_ASSIGN_OR_RETURN(auto started, client->client->StartHint(std::move(call)));
    *op = new reprise_op{client->client.get(), std::move(started)};
    return absl::OkStatus();
  });
}

reprise_code reprise_hint_result_take(reprise_op* op, reprise_hint_result* result,
                                      reprise_error* error) {
  return Guard(error, [&]() -> absl::Status {
    if (result == nullptr) return Unset("result");
    *result = {};
    result->outcome = REPRISE_HINT_MISSING;
    REPRISE_ASSIGN_OR_RETURN(const rc::HintAnswer taken, TakeResult<rc::HintAnswer>(op));
    result->ttl_us = absl::ToInt64Microseconds(taken.result.ttl);
    result->outcome = static_cast<int32_t>(taken.result.outcome);
    result->blocks = taken.result.blocks;
    result->shards = taken.shards;
    reprise::abi::CopyText(taken.result.why, result->why);
    return taken.status;
  });
}

}  // extern "C"
