#include "service/shard/claim_table.h"

#include <algorithm>

#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

template <typename Map, typename Key>
std::vector<ClaimId> ListOf(const Map& lists, const Key& key) {
  const auto it = lists.find(key);
  return it == lists.end() ? std::vector<ClaimId>() : it->second;
}

template <typename Map, typename Key>
void EraseFrom(Map& lists, const Key& key, ClaimId id) {
  const auto it = lists.find(key);
  REPRISE_CHECK(it != lists.end());
  std::erase(it->second, id);
  if (it->second.empty()) lists.erase(it);
}

}  // namespace

ClaimId ClaimTable::Add(Claim claim) {
  REPRISE_CHECK(claim.rests == kNoBlock);
  const ClaimId id(next_id_++);
  REPRISE_CHECK(by_name_.try_emplace(Name(claim.space, claim.name), id).second);
  by_end_.emplace(claim.ends, id);
  keys_ahead_ += claim.ahead.size();
  Wait(id, claims_[id] = std::move(claim));
  return id;
}

void ClaimTable::Erase(ClaimId id) {
  ForgetAhead(id);
  const Claim& claim = claims_.at(id);
  REPRISE_CHECK(claim.rests == kNoBlock);
  by_name_.erase(Name(claim.space, claim.name));
  by_end_.erase({claim.ends, id});
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
  if (claim.rests != kNoBlock) EraseFrom(resting_, claim.rests, id);
  claim.rests = block;
  if (block != kNoBlock) resting_[block].push_back(id);
}

std::vector<ClaimId> ClaimTable::RestingOn(BlockId block) const {
  return ListOf(resting_, block);
}

uint8_t ClaimTable::StrongestOn(BlockId block) const {
  uint8_t strongest = 0;
  const auto it = resting_.find(block);
  if (it == resting_.end()) return strongest;
  for (const ClaimId id : it->second) strongest = std::max(strongest, claims_.at(id).rank);
  return strongest;
}

std::vector<ClaimId> ClaimTable::WaitingFor(const SpaceKey& key) const {
  return ListOf(waiting_, key);
}

void ClaimTable::PassNext(ClaimId id) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  claim.ahead.pop_back();
  --keys_ahead_;
  Wait(id, claim);
}

void ClaimTable::PutAhead(ClaimId id, const BlockKey& key) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  claim.ahead.push_back(key);
  ++keys_ahead_;
  Wait(id, claim);
}

void ClaimTable::ForgetAhead(ClaimId id) {
  Claim& claim = claims_.at(id);
  StopWaiting(id, claim);
  keys_ahead_ -= claim.ahead.size();
  claim.ahead.clear();
}

void ClaimTable::Wait(ClaimId id, const Claim& claim) {
  if (!claim.ahead.empty()) waiting_[SpaceKey{claim.space, claim.ahead.back()}].push_back(id);
}

void ClaimTable::StopWaiting(ClaimId id, const Claim& claim) {
  if (!claim.ahead.empty()) EraseFrom(waiting_, SpaceKey{claim.space, claim.ahead.back()}, id);
}

}  // namespace reprise::shard
