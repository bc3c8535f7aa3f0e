#include "cluster/membership/failure_detector.h"

#include <algorithm>

namespace reprise::cluster {

bool FailureDetector::Heartbeat(const ShardId& id, absl::Time now) {
  const bool was_alive = IsAlive(id, now);
  Heard& heard = heard_.try_emplace(id, Heard{now}).first->second;
  heard.last = std::max(heard.last, now);
  return !was_alive;
}

absl::Duration FailureDetector::Silence(const ShardId& id, absl::Time now) const {
  const auto it = heard_.find(id);
  if (it == heard_.end()) return absl::InfiniteDuration();
  return std::max(now - it->second.last, absl::ZeroDuration());
}

bool FailureDetector::IsAlive(const ShardId& id, absl::Time now) const {
  return Silence(id, now) <= silence_max_;
}

std::vector<FailureDetector::Change> FailureDetector::Check(absl::Time now) {
  std::vector<Change> changes;
  for (auto& [id, heard] : heard_) {
    const bool alive = IsAlive(id, now);
    if (alive == heard.told_alive) continue;
    heard.told_alive = alive;
    changes.push_back({id, alive});
  }
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return a.id < b.id; });
  return changes;
}

}  // namespace reprise::cluster
