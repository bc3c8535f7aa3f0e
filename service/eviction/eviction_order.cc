#include "service/eviction/eviction_order.h"

#include <algorithm>

#include "proto/types/status_macros.h"

namespace reprise::shard {

void EvictionOrder::Track(uint32_t block, uint32_t group, uint64_t key, absl::Time now, bool copy) {
  REPRISE_CHECK(!tracks(block));
  if (block >= nodes_.size()) nodes_.resize(block + 1);
  uint32_t uses = 1;
  const std::optional<Ghost> ghost = copy ? std::nullopt : ghosts_.Take(key);
  if (ghost.has_value()) {
    model_.Reused(ghost->uses, now_ + 1 - ghost->last_use);
    uses = ghost->uses + 1;
  }
  nodes_[block] = {.key = key,
                   .last_use = ++now_,
                   .used_at = now,
                   .uses = uses,
                   .group = group,
                   .end = true,
                   .copy = copy};
  ++groups_[group].blocks;
  ++tracked_;
  EndsOf(nodes_[block]).insert(EndOf(nodes_[block], block));
  Learn();
}

void EvictionOrder::BeginAfter(uint64_t uses) {
  REPRISE_CHECK(now_ == 0);
  now_ = uses;
}

void EvictionOrder::Backdate(uint32_t block, uint64_t last_use) {
  REPRISE_CHECK(tracks(block) && last_use <= now_);
  const bool end = nodes_[block].end;
  SetEnd(block, false);
  nodes_[block].last_use = last_use;
  SetEnd(block, end);
}

void EvictionOrder::Use(uint32_t block, absl::Time now) {
  REPRISE_CHECK(tracks(block));
  Node& node = nodes_[block];
  const bool again = now - node.used_at < limits::kReuseApart;
  if (!again && !node.copy) model_.Reused(node.uses, now_ + 1 - node.last_use);
  node.used_at = now;
  node.copy = false;
  Renew(block, again ? node.uses : node.uses + 1);
  Learn();
}

void EvictionOrder::Refresh(uint32_t block) {
  REPRISE_CHECK(tracks(block));
  Renew(block, nodes_[block].uses);
}

void EvictionOrder::SetEnd(uint32_t block, bool end) {
  REPRISE_CHECK(tracks(block));
  Node& node = nodes_[block];
  if (node.end == end) return;
  node.end = end;
  if (end) {
    EndsOf(node).insert(EndOf(node, block));
  } else {
    EndsOf(node).erase(EndOf(node, block));
  }
}

void EvictionOrder::SetClaim(uint32_t block, uint8_t rank) {
  REPRISE_CHECK(tracks(block));
  Node& node = nodes_[block];
  const bool end = node.end;
  SetEnd(block, false);
  node.claim = rank;
  SetEnd(block, end);
}

void EvictionOrder::Move(uint32_t block, uint32_t group) {
  const Node node = nodes_[block];
  Leave(block);
  nodes_[block] = node;
  nodes_[block].group = group;
  ++groups_[group].blocks;
  ++tracked_;
  if (node.end) EndsOf(nodes_[block]).insert(EndOf(node, block));
}

void EvictionOrder::Evict(uint32_t block) {
  REPRISE_CHECK(tracks(block));
  const Node& node = nodes_[block];
  if (kind_ == Eviction::kLearned && !node.copy) {
    ghosts_.Add(node.key, {.uses = node.uses, .last_use = node.last_use});
    const size_t most = std::min(limits::kGhostsPerBlock * tracked_, limits::kGhostsMax);
    while (ghosts_.size() > most) {
      const Ghost gone = *ghosts_.TakeOldest();
      model_.GivenUp(gone.uses, now_ - gone.last_use);
    }
  }
  Leave(block);
}

void EvictionOrder::Forget(uint32_t block) {
  Leave(block);
}

std::optional<uint32_t> EvictionOrder::Least(uint32_t group,
                                             absl::FunctionRef<bool(uint32_t)> eligible) const {
  const auto it = groups_.find(group);
  if (it == groups_.end()) return std::nullopt;
  std::optional<uint32_t> least;
  EvictionRank rank;
  for (const Ends& ends : it->second.ends) {
    const auto first = std::find_if(ends.begin(), ends.end(),
                                    [&](const auto& end) { return eligible(end.second); });
    if (first == ends.end()) continue;
    const EvictionRank candidate = RankOf(first->second);
    if (least.has_value() && candidate >= rank) continue;
    least = first->second;
    rank = candidate;
  }
  return least;
}

std::optional<EvictionRank> EvictionOrder::LeastRank(uint32_t group) const {
  const std::optional<uint32_t> least = Least(group, [](uint32_t) { return true; });
  if (!least.has_value()) return std::nullopt;
  return RankOf(*least);
}

size_t EvictionOrder::tracked(uint32_t group) const {
  const auto it = groups_.find(group);
  return it == groups_.end() ? 0 : it->second.blocks;
}

EvictionOrder::End EvictionOrder::EndOf(const Node& node, uint32_t block) {
  constexpr int kRankShift = 56;  // above every last_use
  return {uint64_t{node.claim} << kRankShift | node.last_use, block};
}

EvictionOrder::Ends& EvictionOrder::EndsOf(const Node& node) {
  if (node.claim > 0) return groups_[node.group].ends[limits::kReuseClasses];
  const uint32_t uses =
      kind_ == Eviction::kLru ? 1 : std::min<uint32_t>(node.uses, limits::kReuseClasses);
  return groups_[node.group].ends[uses - 1];
}

EvictionRank EvictionOrder::RankOf(uint32_t block) const {
  const Node& node = nodes_[block];
  const bool by_worth = kind_ == Eviction::kLearned && node.claim == 0;
  return {.claim = node.claim,
          .worth = by_worth ? model_.Worth(node.uses, now_ - node.last_use) : 0,
          .last_use = node.last_use};
}

void EvictionOrder::Renew(uint32_t block, uint32_t uses) {
  Node& node = nodes_[block];
  if (node.end) EndsOf(node).erase(EndOf(node, block));
  node.last_use = ++now_;
  node.uses = uses;
  if (node.end) EndsOf(node).insert(EndOf(node, block));
}

void EvictionOrder::Leave(uint32_t block) {
  REPRISE_CHECK(tracks(block));
  SetEnd(block, false);
  const auto group = groups_.find(nodes_[block].group);
  if (--group->second.blocks == 0) groups_.erase(group);
  --tracked_;
  nodes_[block] = Node();
}

void EvictionOrder::Learn() {
  if (kind_ == Eviction::kLru || now_ < refit_at_) return;
  if (refit_at_ > 0) model_.Refit();
  refit_at_ = now_ + std::max(limits::kReuseRefitUsesMin,
                              static_cast<uint64_t>(limits::kReuseRefitBlocksShare *
                                                    static_cast<double>(tracked_)));
}

}  // namespace reprise::shard
