// What callers say of K/V that they are not about to use. Here is what they let go before its
// turn: from a prefix's end, and nothing that another prompt goes on from, that is in use, or that
// a claim keeps. What they want kept is in shard_engine_claims.cc.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

HintResult NothingStored(uint32_t first_block) {
  return {.outcome = HintOutcome::kMissing,
          .why = absl::StrCat("no block of this prefix from block ", first_block,
                              " on is stored here")};
}

}  // namespace

absl::StatusOr<HintResult> ShardEngineImpl::Hint(AttachmentId attachment, const HintArgs& args) {
  if (absl::Status sense = CheckHint(args.hint, args.keys.size()); !sense.ok()) {
    counters_.Add(Counter::kRefusedInvalid);
    return sense;
  }
  REPRISE_ASSIGN_OR_RETURN(const KeySpaceId space_id, attachments_.Resolve(attachment, args.spec));
  if (args.hint.verb == HintVerb::kDemote) return DemoteRun(attachment, space_id, args);
  REPRISE_ASSIGN_OR_RETURN(const AttachmentTable::Entry who, attachments_.Get(attachment));
  Locked lock(this);
  Settle(clock_.Now());
  REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
  KeySpace& space = SpaceOf(space_id);
  switch (args.hint.verb) {
    case HintVerb::kRelease:
      return ReleaseClaim(space, args.hint);
    case HintVerb::kEvict:
      return EvictRun(space, args, who.client_name);
    default:
      return PlaceClaim(space, args);
  }
}

// nullptr: it may go.
const char* ShardEngineImpl::WhyItStays(BlockId id) const {
  const BlockRecord& block = blocks_[id];
  if (block.children > 0) return "another prompt goes on from it";
  if (block.reserved_children > 0) return "another prompt is about to go on from it";
  if (block.leases > 0 || block.pins > 0) return "it is in use";
  if (block.claims > 0) return "a claim keeps it";
  return nullptr;
}

HintResult ShardEngineImpl::EvictRun(KeySpace& space, const HintArgs& args, absl::string_view by) {
  std::vector<BlockId> run = StoredRun(space, args.keys);
  const uint32_t first = args.hint.first_block;
  if (run.size() <= first) return NothingStored(first);
  const Tombstone tombstone{.cause = DropCause::kRemoved,
                            .unix_ms = absl::ToUnixMillis(absl::Now()),
                            .detail = std::string(by)};
  HintResult result{.outcome = HintOutcome::kApplied};
  while (run.size() > first) {
    if (const char* const why = WhyItStays(run.back()); why != nullptr) {
      result.outcome = HintOutcome::kClipped;
      result.why = absl::StrCat("block ", run.size() - 1, " stays: ", why);
      break;
    }
    Drop(space, run.back(), tombstone, BlockState::kHidden);
    run.pop_back();
    ++result.blocks;
  }
  counters_.Add(Counter::kHintedEvictBlocks, result.blocks);
  return result;
}

// Batch by batch, as other blocks move: those that are not on the last tier, each when nothing on
// its own tier hangs from it any more, and each by one tier.
absl::StatusOr<HintResult> ShardEngineImpl::DemoteRun(AttachmentId attachment, KeySpaceId space_id,
                                                      const HintArgs& args) {
  HintResult result{.outcome = HintOutcome::kApplied};
  RunPart part{.first = args.hint.first_block, .end = args.keys.size()};
  while (part.end > part.first && result.why.empty()) {
    REPRISE_RETURN_IF_ERROR(MakeRoomForRun(attachment, space_id, args.keys, part));
    std::vector<Demotion> begun;
    {
      Locked lock(this);
      Settle(clock_.Now());
      REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
      const std::vector<BlockId> run = StoredRun(SpaceOf(space_id), args.keys);
      if (run.size() <= part.first && result.blocks == 0) return NothingStored(part.first);
      part.end = std::min(part.end, run.size());
      result.why = BeginRunDemotions(run, part, begun);
    }
    for (Demotion& demotion : begun) demotion.outcome = Move(*pool_, demotion.move);
    const size_t moved = FinishDemotions(begun);
    result.blocks += static_cast<uint32_t>(moved);
    if (moved < begun.size()) {
      result.why = "blocks were taken into use while they moved, or could not be copied";
    } else if (result.why.empty() && result.blocks >= limits::kDemoteHintBlocksMax) {
      result.why =
          absl::StrCat("one hint moves kDemoteHintBlocksMax = ", limits::kDemoteHintBlocksMax,
                       " blocks: ask again for the rest");
    }
  }
  counters_.Add(Counter::kHintedDemoteBlocks, result.blocks);
  if (!result.why.empty()) {
    result.outcome = HintOutcome::kClipped;
  } else if (result.blocks == 0) {
    result = {.outcome = HintOutcome::kMissing,
              .why = "none of these blocks lies on a tier that has a slower one below it"};
  }
  return result;
}

// On the tiers below those that the next batch lies on.
absl::Status ShardEngineImpl::MakeRoomForRun(AttachmentId attachment, KeySpaceId space_id,
                                             std::span<const BlockKey> keys, const RunPart& part) {
  std::vector<size_t> wanted(pool_->levels());
  {
    Locked lock(this);
    REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
    const std::vector<BlockId> run = StoredRun(SpaceOf(space_id), keys);
    const size_t end = std::min(part.end, run.size());
    for (size_t at = end; at > part.first && end - at < limits::kDemoteBatchBlocks; --at) {
      ++wanted[pool_->LevelOf(blocks_[run[at - 1]].slot)];
    }
  }
  for (Level level = 0; level < pool_->last(); ++level) {
    if (wanted[level] > 0)
      MakeRoomBelow({.level = level, .only = space_id, .blocks_max = wanted[level]});
  }
  return absl::OkStatus();
}

// From part.end, which it moves along, back to part.first; a batch at most. Why it stopped before;
// empty: it did not.
std::string ShardEngineImpl::BeginRunDemotions(const std::vector<BlockId>& run, RunPart& part,
                                               std::vector<Demotion>& begun) {
  for (; part.end > part.first && begun.size() < limits::kDemoteBatchBlocks; --part.end) {
    const BlockId id = run[part.end - 1];
    const Level level = pool_->LevelOf(blocks_[id].slot);
    if (level == pool_->last()) continue;
    const char* const why = !Movable(id)                    ? "it is in use"
                            : blocks_[id].near_children > 0 ? "others that hang from it are there"
                                                            : nullptr;
    const Group group{.space = &SpaceOf(blocks_[id].space), .level = level};
    if (why == nullptr && BeginDemotion(group, id, begun)) continue;
    return absl::StrCat("block ", part.end - 1,
                        " stays on its tier: ", why == nullptr ? "there is no room below" : why);
  }
  return "";
}

}  // namespace reprise::shard
