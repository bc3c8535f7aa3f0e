#include "service/shard/waiting_blocks.h"

#include "proto/types/status_macros.h"

namespace reprise::shard {

void WaitingBlocks::Add(const Arrival& arrival) {
  const BlockId block = arrival.block;
  const KeySpaceId space = arrival.key.space;
  Node node{
      .key = arrival.key, .parent = arrival.parent, .age = arrival.age, .proved = arrival.proved};
  REPRISE_CHECK(by_key_.emplace(arrival.key, block).second);
  if (arrival.parent.has_value()) {
    const auto [first, alone] = first_below_.emplace(SpaceKey{space, *arrival.parent}, block);
    if (!alone) {
      node.next = first->second;
      nodes_.at(node.next).previous = block;
      first->second = block;
    }
  }
  nodes_.emplace(block, node);
  by_space_[space].push_back(block);
}

void WaitingBlocks::Erase(BlockId block) {
  const auto it = nodes_.find(block);
  REPRISE_CHECK(it != nodes_.end());
  const Node node = it->second;
  nodes_.erase(it);
  by_key_.erase(node.key);
  if (node.next != kNoBlock) nodes_.at(node.next).previous = node.previous;
  if (node.previous != kNoBlock) {
    nodes_.at(node.previous).next = node.next;
  } else if (node.parent.has_value()) {
    const SpaceKey parent{node.key.space, *node.parent};
    if (node.next == kNoBlock) {
      first_below_.erase(parent);
    } else {
      first_below_[parent] = node.next;
    }
  }
}

std::optional<BlockId> WaitingBlocks::Find(const SpaceKey& key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? std::nullopt : std::optional(it->second);
}

std::vector<BlockId> WaitingBlocks::Below(const SpaceKey& parent) const {
  std::vector<BlockId> blocks;
  const auto first = first_below_.find(parent);
  if (first == first_below_.end()) return blocks;
  for (BlockId at = first->second; at != kNoBlock; at = nodes_.at(at).next) blocks.push_back(at);
  return blocks;
}

std::optional<BlockId> WaitingBlocks::Coldest(KeySpaceId space) {
  const auto it = by_space_.find(space);
  if (it == by_space_.end()) return std::nullopt;
  std::vector<BlockId>& blocks = it->second;
  while (!blocks.empty() && !Contains(blocks.back())) blocks.pop_back();
  return blocks.empty() ? std::nullopt : std::optional(blocks.back());
}

}  // namespace reprise::shard
