#include "service/router/holder_sets.h"

#include <algorithm>
#include <utility>

#include "proto/types/status_macros.h"

namespace reprise::router {
namespace {

// Sets without blocks are kept until there are this many, so that a set in use now and then is not
// made anew each time.
constexpr size_t kCollectFirst = 1024;

}  // namespace

HolderSets::HolderSets() : records_(1), collect_at_(kCollectFirst) {}

SetId HolderSets::With(SetId set, Holder holder) {
  return Change(true, set, holder);
}

SetId HolderSets::Without(SetId set, StreamIndex stream) {
  return Change(false, set, {.stream = stream});
}

bool HolderSets::Contains(SetId set, StreamIndex stream) const {
  const std::span<const Holder> members = Members(set);
  return std::any_of(members.begin(), members.end(),
                     [&](const Holder& h) { return h.stream == stream; });
}

SetId HolderSets::Change(bool with, SetId set, Holder holder) {
  SetId to;
  if (memo_.valid && memo_.from == set && memo_.with == with && memo_.holder == holder) {
    to = memo_.to;
  } else {
    Members_ members = records_[set].members;
    const auto at = std::find_if(members.begin(), members.end(), [&](const Holder& member) {
      return member.stream >= holder.stream;
    });
    const bool there = at != members.end() && at->stream == holder.stream;
    if (with && there) at->tier = holder.tier;
    if (with && !there) members.insert(at, holder);
    if (!with && there) members.erase(at);
    to = Intern(std::move(members));
    memo_ = {.with = with, .from = set, .holder = holder, .to = to, .valid = true};
  }
  if (to == set) return set;
  if (set != 0) --records_[set].blocks;
  if (to != 0) ++records_[to].blocks;
  return to;
}

// May collect, but never the set that the caller is moving away from: its reference still counts.
SetId HolderSets::Intern(Members_ members) {
  if (members.empty()) return 0;
  if (const auto it = by_members_.find(members); it != by_members_.end()) return it->second;
  if (size() >= collect_at_) CollectUnused();
  SetId id;
  if (free_.empty()) {
    id = static_cast<SetId>(records_.size());
    records_.emplace_back();
  } else {
    id = free_.back();
    free_.pop_back();
  }
  records_[id].members = members;
  by_members_.emplace(std::move(members), id);
  return id;
}

void HolderSets::CollectUnused() {
  memo_.valid = false;
  for (SetId id = 1; id < records_.size(); ++id) {
    Record& record = records_[id];
    if (record.blocks != 0 || record.members.empty()) continue;
    by_members_.erase(record.members);
    record.members.clear();
    free_.push_back(id);
  }
  collect_at_ = std::max(kCollectFirst, 2 * size());
}

}  // namespace reprise::router
