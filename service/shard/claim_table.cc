#include "service/shard/claim_table.h"

#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

template <typename Map, typename Key>
std::vector<ClaimId> ListOf(const Map& lists, const Key& key) {
  std::vector<ClaimId> list;
  const auto it = lists.find(key);
  if (it == lists.end()) return list;
  for (const auto& [rank, id] : it->second) list.push_back(id);
  return list;
}

template <typename Map, typename Key>
void EraseFrom(Map& lists, const Key& key, uint8_t rank, ClaimId id) {
  const auto it = lists.find(key);
  REPRISE_CHECK(it != lists.end() && it->second.erase({rank, id}) == 1);
  if (it->second.empty()) lists.erase(it);
}

}  // namespace

ClaimId ClaimTable::Add(Claim claim) {
  REPRISE_CHECK(claim.rests == kNoBlock);
  const ClaimId id(next_id_++);
  REPRISE_CHECK(by_name_.try_emplace(Name(claim.space, claim.name), id).second);
  by_end_.emplace(claim.ends, id);
  Claim& added = claims_[id] = std::move(claim);
  ++added.owner->claims;
  CountAhead(added, static_cast<ptrdiff_t>(added.ahead.size()));
  Wait(id, added);
  return id;
}

void ClaimTable::Erase(ClaimId id) {
  ForgetAhead(id);
  const Claim& claim = claims_.at(id);
  REPRISE_CHECK(claim.rests == kNoBlock);
  by_name_.erase(Name(claim.space, claim.name));
  by_end_.erase({claim.ends, id});
  --claim.owner->claims;
  claims_.erase(id);
}

std::optional<ClaimId> ClaimTable::Find(KeySpaceId space, absl::string_view name) const {
  const auto it = by_name_.find(Name(space, std::string(name)));
  if (it == by_name_.end()) return std::nullopt;
  return it->second;
}

std::optional<ClaimId> ClaimTable::Overdue(absl::Time now) const {
  if (by_end_.empty() || by_end_.begin()->first > now) return std::nullopt;
  return by_end_.begin()->second;
}

std::vector<ClaimId> ClaimTable::Of(KeySpaceId space) const {
  std::vector<ClaimId> found;
  for (const auto& [id, claim] : claims_) {
    if (claim.space == space) found.push_back(id);
  }
  return found;
}

std::vector<ClaimId> ClaimTable::All() const {
  std::vector<ClaimId> all;
  for (const auto& [id, claim] : claims_) all.push_back(id);
  return all;
}

void ClaimTable::Rest(ClaimId id, BlockId block) {
  Claim& claim = claims_.at(id);
  if (claim.rests != kNoBlock) EraseFrom(resting_, claim.rests, claim.rank, id);
  claim.rests = block;
  if (block != kNoBlock) resting_[block].emplace(claim.rank, id);
}

std::vector<ClaimId> ClaimTable::RestingOn(BlockId block) const {
  return ListOf(resting_, block);
}

uint8_t ClaimTable::StrongestOn(BlockId block) const {
  const auto it = resting_.find(block);
  return it == resting_.end() ? 0 : it->second.rbegin()->first;
}

std::vector<ClaimId> ClaimTable::WaitingFor(const SpaceKey& key) const {
  return ListOf(waiting_, key);
}

void ClaimTable::PassNext(ClaimId id) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  claim.ahead.pop_back();
  CountAhead(claim, -1);
  Wait(id, claim);
}

void ClaimTable::PutAhead(ClaimId id, const BlockKey& key) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  claim.ahead.push_back(key);
  CountAhead(claim, 1);
  Wait(id, claim);
}

void ClaimTable::ForgetAhead(ClaimId id) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  CountAhead(claim, -static_cast<ptrdiff_t>(claim.ahead.size()));
  claim.ahead.clear();
}

void ClaimTable::CountAhead(Claim& claim, ptrdiff_t keys) {
  keys_ahead_ += keys;
  claim.owner->keys_ahead += keys;
}

void ClaimTable::Wait(ClaimId id, const Claim& claim) {
  if (!claim.ahead.empty())
    waiting_[SpaceKey{claim.space, claim.ahead.back()}].emplace(claim.rank, id);
}

void ClaimTable::StopWaiting(ClaimId id, const Claim& claim) {
  if (!claim.ahead.empty())
    EraseFrom(waiting_, SpaceKey{claim.space, claim.ahead.back()}, claim.rank, id);
}

}  // namespace reprise::shard
