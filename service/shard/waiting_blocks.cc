#include "service/shard/waiting_blocks.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "proto/types/status_macros.h"

namespace reprise::shard {

void WaitingBlocks::Add(BlockId block, const SpaceKey& parent) {
  REPRISE_CHECK(parents_.emplace(block, parent).second);
  by_parent_[parent].push_back(block);
  by_space_[parent.space].push_back(block);
}

void WaitingBlocks::Erase(BlockId block) {
  const auto it = parents_.find(block);
  REPRISE_CHECK(it != parents_.end());
  const auto siblings = by_parent_.find(it->second);
  std::vector<BlockId>& blocks = siblings->second;
  // The coldest go first, and came last.
  blocks.erase(std::prev(std::find(blocks.rbegin(), blocks.rend(), block).base()));
  if (blocks.empty()) by_parent_.erase(siblings);
  parents_.erase(it);
}

std::vector<BlockId> WaitingBlocks::Take(const SpaceKey& parent) {
  const auto it = by_parent_.find(parent);
  if (it == by_parent_.end()) return {};
  std::vector<BlockId> blocks = std::move(it->second);
  by_parent_.erase(it);
  for (const BlockId block : blocks) parents_.erase(block);
  return blocks;
}

std::optional<BlockId> WaitingBlocks::Coldest(KeySpaceId space) {
  const auto it = by_space_.find(space);
  if (it == by_space_.end()) return std::nullopt;
  std::vector<BlockId>& blocks = it->second;
  while (!blocks.empty() && !Contains(blocks.back())) blocks.pop_back();
  return blocks.empty() ? std::nullopt : std::optional<BlockId>(blocks.back());
}

}  // namespace reprise::shard
