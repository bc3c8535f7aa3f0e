#include "cluster/membership/etcd/member_table.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "cluster/membership/etcd/member_record.h"

namespace reprise::cluster {

absl::string_view MemberTable::IdOf(absl::string_view key) const {
  return absl::StartsWith(key, prefix_) ? key.substr(prefix_.size()) : absl::string_view();
}

void MemberTable::Replace(std::span<const EtcdEntry> entries, absl::Time now) {
  broken_.clear();
  std::vector<std::string> gone;
  for (const auto& known : known_) {
    const bool listed = std::any_of(entries.begin(), entries.end(), [&](const EtcdEntry& entry) {
      return IdOf(entry.key) == known.first;
    });
    if (!listed) gone.push_back(known.first);
  }
  for (const std::string& id : gone) Vanish(id, now);
  for (const EtcdEntry& entry : entries) Put(entry, now);
}

void MemberTable::Apply(const EtcdChange& change, absl::Time now) {
  if (change.deleted) {
    const absl::string_view id = IdOf(change.entry.key);
    const auto broken = broken_.find(id.substr(0, limits::kNameBytesMax));
    if (broken != broken_.end()) broken_.erase(broken);
    Vanish(id, now);
  } else {
    Put(change.entry, now);
  }
}

void MemberTable::Put(const EtcdEntry& entry, absl::Time now) {
  if (!absl::StartsWith(entry.key, prefix_)) return;
  const std::string id(IdOf(entry.key));
  broken_.erase(id.substr(0, limits::kNameBytesMax));
  absl::StatusOr<MemberRecord> record = ParseRecord(id, entry.value);
  if (record.ok() && record->leaving) {
    known_.erase(id);
    return;
  }
  const bool full = known_.size() >= limits::kShardsMax && !known_.contains(id);
  if (record.ok() && !full) {
    known_[id] = {.member = std::move(record->member)};
    return;
  }
  if (broken_.size() < limits::kShardsMax) {
    // A key is as long as somebody likes.
    broken_[id.substr(0, limits::kNameBytesMax)] =
        record.ok() ? absl::StrCat("there are kShardsMax = ", limits::kShardsMax, " others")
                    : std::string(record.status().message());
  }
  Vanish(id, now);
}

void MemberTable::Vanish(absl::string_view id, absl::Time now) {
  if (const auto known = known_.find(id); known != known_.end()) {
    known->second.vanished = std::min(known->second.vanished, now);
  }
}

void MemberTable::Forget(absl::Time now) {
  std::erase_if(known_, [&](const auto& entry) { return entry.second.vanished + kept_ <= now; });
}

std::vector<Member> MemberTable::Members() const {
  std::vector<Member> members;
  members.reserve(known_.size());
  for (const auto& [id, known] : known_) members.push_back(known.member);
  return members;
}

std::string MemberTable::Trouble() const {
  if (broken_.empty()) return {};
  const auto& [id, why] = *broken_.begin();
  return absl::StrCat(
      "the record ", absl::CEscape(prefix_), absl::CEscape(id), ": ", why,
      broken_.size() == 1 ? "" : absl::StrCat(", and ", broken_.size() - 1, " more"));
}

}  // namespace reprise::cluster
