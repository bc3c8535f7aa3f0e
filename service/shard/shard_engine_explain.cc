// "Why did this miss?"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

std::string Utc(int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone()) +
         " UTC";
}

}  // namespace

absl::StatusOr<Explanation> ShardEngineImpl::Explain(const Tenant& tenant,
                                                     const Fingerprint& fingerprint,
                                                     std::span<const BlockKey> keys,
                                                     std::span<const uint32_t> token_ids) {
  Explanation answer;
  Locked lock(this);
  Question question{
      .tenant = tenant, .fingerprint = fingerprint, .keys = keys, .token_ids = token_ids};
  question.space = FindSpace(tenant, fingerprint);
  if (question.space != nullptr) question.run = StoredRun(*question.space, keys);
  answer.run_blocks = static_cast<uint32_t>(question.run.size());
  answer.miss_block = answer.run_blocks;
  answer.tiers = TiersOf(question.run);
  const std::string stored = absl::StrCat(answer.run_blocks, " of ", keys.size(),
                                          " blocks are stored on ", options_.id.name, ". ");
  if (question.run.size() == keys.size()) {
    answer.sentence = stored + "Nothing misses.";
    return answer;
  }
  ExplainMiss(question, answer);
  answer.sentence = absl::StrCat(stored, "Block ", answer.miss_block, " misses: ", answer.sentence);
  return answer;
}

// The most particular reason that holds for the first key that is not stored.
void ShardEngineImpl::ExplainMiss(const Question& question, Explanation& answer) const {
  if (ExplainPending(question, answer) || ExplainTombstone(question, answer) ||
      ExplainOtherSpec(question, answer) || ExplainSibling(question, answer)) {
    return;
  }
  answer.reason = MissReason::kNeverStored;
  answer.sentence =
      question.space == nullptr
          ? absl::StrCat("no client has opened the spec with fingerprint ",
                         ToHex(question.fingerprint),
                         " on this shard. Store a prompt under it first, or ask the shard that is "
                         "home to the session.")
          : absl::StrCat(
                "it was never stored here, as far back as the shard remembers (",
                limits::kTombstonesMax,
                " dropped blocks). Store it, or ask the shard that is home to the session.");
}

bool ShardEngineImpl::ExplainPending(const Question& question, Explanation& answer) const {
  if (question.space == nullptr) return false;
  const SpaceKey key{question.space->id, question.keys[answer.miss_block]};
  const bool reserved = reserved_.contains(key);
  if (!reserved && !waiting_.Find(key).has_value()) return false;
  answer.reason = MissReason::kPending;
  answer.sentence =
      reserved ? "a writer has reserved it and has not committed it yet. Ask again in a moment."
               : "it lies on the disk since the last process, which ended without saying so, and "
                 "is still "
                 "to be read and checked. Ask again in a moment.";
  return true;
}

bool ShardEngineImpl::ExplainTombstone(const Question& question, Explanation& answer) const {
  if (question.space == nullptr) return false;
  const Tombstone* stone =
      tombstones_.Find(SpaceKey{question.space->id, question.keys[answer.miss_block]});
  if (stone == nullptr) return false;
  answer.event_unix_ms = stone->unix_ms;
  const std::string when = Utc(stone->unix_ms);
  switch (stone->cause) {
    case DropCause::kWatermark:
      answer.event_cause = "the background eviction, because the pool was nearly full";
      break;
    case DropCause::kOwnSpace:
      answer.event_cause = "another block of the same spec that needed its slot";
      break;
    case DropCause::kReclaim: {
      const auto taker = spaces_.find(stone->for_space);
      answer.event_cause = taker != spaces_.end() && taker->second->tenant == question.tenant
                               ? absl::StrCat("the blocks of another spec that needed memory (",
                                              DescribeSpec(taker->second->spec), ")")
                               : "the blocks of another spec that needed memory";
      break;
    }
    case DropCause::kQuota:
      answer.event_cause = "another block of this tenant, which is at its quota here";
      break;
    case DropCause::kRemoved:
      answer.event_cause = absl::StrCat("a Remove of client \"", stone->detail, "\"");
      break;
    case DropCause::kQuarantined:
      answer.event_cause = stone->detail;
      break;
    case DropCause::kBeneathQuarantined:
      answer.event_cause = absl::StrCat("a block before it: ", stone->detail);
      break;
    case DropCause::kTierLost:
      answer.event_cause = "the loss of the GPU that it, or a block before it, lay on";
      break;
  }
  if (stone->cause == DropCause::kQuota) {
    answer.reason = MissReason::kEvicted;
    answer.sentence = absl::StrCat("it was evicted at ", when, " by ", answer.event_cause,
                                   ". Raise the tenant's --tenant-quota.");
  } else if (IsEviction(stone->cause)) {
    answer.reason = MissReason::kEvicted;
    answer.sentence = absl::StrCat("it was evicted at ", when, " by ", answer.event_cause,
                                   ". Give the shard more --dram, or add shards.");
  } else if (stone->cause == DropCause::kTierLost) {
    answer.reason = MissReason::kEvicted;
    answer.sentence = absl::StrCat("it went at ", when, " by ", answer.event_cause,
                                   ". Restart the shard, once its GPU works.");
  } else if (stone->cause == DropCause::kRemoved) {
    answer.reason = MissReason::kRemoved;
    answer.sentence =
        absl::StrCat("it was dropped at ", when, " by ", answer.event_cause, ". Store it again.");
  } else {
    answer.reason = MissReason::kQuarantined;
    answer.sentence = absl::StrCat(
        "it was quarantined at ", when, " because of ", answer.event_cause,
        ". It is computed and stored anew; look at the machine's memory if this recurs.");
  }
  return true;
}

bool ShardEngineImpl::ExplainOtherSpec(const Question& question, Explanation& answer) const {
  const KeySpace* other = NearestSpaceWith(question, question.keys[answer.miss_block]);
  if (other == nullptr) return false;
  answer.reason = MissReason::kOtherSpec;
  if (question.space == nullptr) {
    answer.sentence = absl::StrCat(
        "it is stored under another cache spec (", DescribeSpec(other->spec),
        "); the spec asked for was never opened here. Use the spec that it was stored under.");
    return true;
  }
  answer.spec_difference = *FirstDifference(question.space->spec, other->spec);
  answer.sentence = absl::StrCat(
      "it is stored under another cache spec: ", answer.spec_difference.field, " is \"",
      answer.spec_difference.left, "\" in the one asked for and \"", answer.spec_difference.right,
      "\" in the one stored. Make the engines agree on it.");
  return true;
}

// Of the other specs that have the key, the one that takes the fewest changes to become.
const KeySpace* ShardEngineImpl::NearestSpaceWith(const Question& question,
                                                  const BlockKey& key) const {
  const auto spaces = space_ids_.find(question.tenant);
  if (spaces == space_ids_.end()) return nullptr;
  const KeySpace* nearest = nullptr;
  int fewest = 0;
  for (const auto& [fingerprint, id] : spaces->second) {
    if (fingerprint == question.fingerprint) continue;
    if (!index_.Find(SpaceKey{id, key}).has_value()) continue;
    const KeySpace& other = SpaceOf(id);
    const int differences =
        question.space == nullptr ? 0 : CountDifferences(question.space->spec, other.spec);
    if (nearest != nullptr && differences >= fewest) continue;
    nearest = &other;
    fewest = differences;
  }
  return nearest;
}

// The stored block with the same parent that has most leading tokens in common with the one that
// misses.
bool ShardEngineImpl::ExplainSibling(const Question& question, Explanation& answer) const {
  if (question.space == nullptr) return false;
  const uint32_t block_tokens = question.space->spec.block_tokens;
  const size_t begin = size_t{answer.miss_block} * block_tokens;
  if (question.token_ids.size() < begin + block_tokens) return false;
  const std::span<const uint32_t> asked = question.token_ids.subspan(begin, block_tokens);
  BlockId sibling =
      question.run.empty() ? question.space->roots : blocks_[question.run.back()].first_child;
  size_t best = 0;
  uint32_t stored_token = 0;
  bool found = false;
  for (size_t n = 0; sibling != kNoBlock && n < limits::kExplainSiblingsMax; ++n) {
    const BlockRecord& block = blocks_[sibling];
    sibling = block.next_sibling;
    if (block.chain->token_ids.empty()) continue;
    const auto stored = block.chain->token_ids.begin() +
                        size_t{block.depth - block.chain->first_block} * block_tokens;
    const auto common = static_cast<size_t>(
        std::mismatch(asked.begin(), asked.end(), stored).first - asked.begin());
    if (common == block_tokens || (found && common <= best)) continue;
    found = true;
    best = common;
    stored_token = stored[common];
  }
  if (!found) return false;
  answer.reason = MissReason::kTokensDiffer;
  answer.first_differing_token = static_cast<uint32_t>(begin + best);
  answer.prompt_token = asked[best];
  answer.stored_token = stored_token;
  answer.sentence =
      absl::StrCat("its tokens differ from the nearest stored sibling at token index ",
                   answer.first_differing_token, " of the prompt (", answer.prompt_token,
                   " asked for, ", stored_token,
                   " stored). Put what changes from prompt to prompt, such as a timestamp or a "
                   "name, after what stays the same.");
  return true;
}

}  // namespace reprise::shard
