// What callers want to let go before its turn: from a prefix's end, and nothing that another prompt
// goes on from, that is in use, or that a claim keeps.

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
// its own tier hangs from it any more.
absl::StatusOr<HintResult> ShardEngineImpl::DemoteRun(AttachmentId attachment, KeySpaceId space_id,
                                                      const HintArgs& args) {
  HintResult result{.outcome = HintOutcome::kApplied};
  std::vector<Demotion> begun;
  size_t freed = 0;
  do {
    begun.clear();
    result.why.clear();
    {
      Locked lock(this);
      Settle(clock_.Now());
      REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
      KeySpace& space = SpaceOf(space_id);
      const std::vector<BlockId> run = StoredRun(space, args.keys);
      if (run.size() <= args.hint.first_block) return NothingStored(args.hint.first_block);
      for (size_t at = run.size(); at > args.hint.first_block; --at) {
        if (begun.size() == limits::kDemoteBatchBlocks) break;
        const BlockRecord& block = blocks_[run[at - 1]];
        const Level level = pool_->LevelOf(block.slot);
        if (level == pool_->last()) continue;
        const char* const why = !Movable(run[at - 1])     ? "it is in use"
                                : block.near_children > 0 ? "others that hang from it are there"
                                                          : nullptr;
        if (why == nullptr && BeginDemotion({.space = &space, .level = level}, run[at - 1], begun))
          continue;
        result.why =
            absl::StrCat("block ", at - 1,
                         " stays on its tier: ", why == nullptr ? "there is no room below" : why);
        break;
      }
    }
    for (Demotion& demotion : begun) demotion.outcome = Move(*pool_, demotion.move);
    freed = FinishDemotions(begun);
    result.blocks += static_cast<uint32_t>(freed);
  } while (freed > 0);
  counters_.Add(Counter::kHintedDemoteBlocks, result.blocks);
  if (!begun.empty()) result.why = "blocks were taken into use while they moved";
  if (!result.why.empty()) {
    result.outcome = HintOutcome::kClipped;
  } else if (result.blocks == 0) {
    result = {.outcome = HintOutcome::kMissing,
              .why = "none of these blocks lies on a tier that has a slower one below it"};
  }
  return result;
}

}  // namespace reprise::shard
