#include "service/eviction/lru_policy.h"

#include "proto/types/status_macros.h"

namespace reprise::shard {

void LruPolicy::Track(uint32_t block, uint32_t group) {
  REPRISE_CHECK(!tracks(block));
  if (block >= nodes_.size()) nodes_.resize(block + 1);
  nodes_[block].group = group;
  PushHot(lists_[group], block);
}

void LruPolicy::Touch(uint32_t block) {
  REPRISE_CHECK(tracks(block));
  List& list = lists_[nodes_[block].group];
  Unlink(list, block);
  PushHot(list, block);
}

void LruPolicy::Forget(uint32_t block) {
  REPRISE_CHECK(tracks(block));
  const auto it = lists_.find(nodes_[block].group);
  Unlink(it->second, block);
  nodes_[block].stamp = 0;
  if (it->second.blocks == 0) lists_.erase(it);
}

std::optional<uint32_t> LruPolicy::Coldest(uint32_t group,
                                           absl::FunctionRef<bool(uint32_t)> eligible) {
  const auto it = lists_.find(group);
  if (it == lists_.end()) return std::nullopt;
  List& list = it->second;
  for (size_t tries = list.blocks; tries > 0; --tries) {
    const uint32_t block = list.coldest;
    if (eligible(block)) return block;
    Unlink(list, block);
    PushHot(list, block);
  }
  return std::nullopt;
}

uint64_t LruPolicy::ColdestStamp(uint32_t group) const {
  const auto it = lists_.find(group);
  return it == lists_.end() ? kNeverStamp : nodes_[it->second.coldest].stamp;
}

uint64_t LruPolicy::Stamp(uint32_t block) const {
  REPRISE_CHECK(tracks(block));
  return nodes_[block].stamp;
}

size_t LruPolicy::tracked(uint32_t group) const {
  const auto it = lists_.find(group);
  return it == lists_.end() ? 0 : it->second.blocks;
}

void LruPolicy::PushHot(List& list, uint32_t block) {
  Node& node = nodes_[block];
  node.colder = list.hottest;
  node.hotter = kNone;
  node.stamp = next_stamp_++;
  (list.hottest == kNone ? list.coldest : nodes_[list.hottest].hotter) = block;
  list.hottest = block;
  ++list.blocks;
}

void LruPolicy::Unlink(List& list, uint32_t block) {
  const Node& node = nodes_[block];
  (node.colder == kNone ? list.coldest : nodes_[node.colder].hotter) = node.hotter;
  (node.hotter == kNone ? list.hottest : nodes_[node.hotter].colder) = node.colder;
  --list.blocks;
}

}  // namespace reprise::shard
