#include "proto/types/hints.h"

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise {
namespace {

absl::Status Senseless(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

bool NamesClaim(HintVerb verb) {
  return verb == HintVerb::kRetain || verb == HintVerb::kPin || verb == HintVerb::kRelease;
}

}  // namespace

const char* HintVerbName(HintVerb verb) {
  switch (verb) {
    case HintVerb::kRetain:
      return "retain";
    case HintVerb::kPin:
      return "pin";
    case HintVerb::kRelease:
      return "release";
    case HintVerb::kEvict:
      return "evict";
    case HintVerb::kDemote:
      return "demote";
  }
  return "unknown";
}

const char* HintOutcomeName(HintOutcome outcome) {
  switch (outcome) {
    case HintOutcome::kApplied:
      return "applied";
    case HintOutcome::kClipped:
      return "clipped";
    case HintOutcome::kDeferred:
      return "deferred";
    case HintOutcome::kMissing:
      return "missing";
  }
  return "unknown";
}

absl::Status CheckHint(const Hint& hint, size_t key_count) {
  const char* const verb = HintVerbName(hint.verb);
  if (NamesClaim(hint.verb) &&
      (hint.claim_id.empty() || hint.claim_id.size() > limits::kNameBytesMax)) {
    return Senseless("CLAIM_ID",
                     absl::StrCat("claim_id has ", hint.claim_id.size(), " bytes: ", verb,
                                  " needs a name of 1 to ", limits::kNameBytesMax, " bytes"));
  }
  if (hint.verb == HintVerb::kRelease) return absl::OkStatus();
  if (key_count == 0) {
    return Senseless("HINT_KEYS", absl::StrCat("keys is empty: ", verb,
                                               " needs the keys of a whole prefix, from its "
                                               "first block"));
  }
  if (hint.verb == HintVerb::kEvict || hint.verb == HintVerb::kDemote) {
    if (hint.first_block < key_count) return absl::OkStatus();
    return Senseless("HINT_FIRST_BLOCK",
                     absl::StrCat("first_block = ", hint.first_block, " lies beyond the ",
                                  key_count, " keys: name one of their blocks"));
  }
  if (hint.ttl <= absl::ZeroDuration()) {
    return Senseless("CLAIM_TTL", absl::StrCat("ttl is ", absl::FormatDuration(hint.ttl), ": ",
                                               verb, " needs a time above 0 to end after"));
  }
  if (hint.verb == HintVerb::kRetain &&
      (hint.priority == 0 || hint.priority > limits::kClaimPriorityMax)) {
    return Senseless("CLAIM_PRIORITY", absl::StrCat("priority = ", hint.priority, ": give 1 to ",
                                                    limits::kClaimPriorityMax));
  }
  return absl::OkStatus();
}

}  // namespace reprise
