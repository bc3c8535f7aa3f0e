#include "client/cpp/prefetched_runs.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/types/limits.h"

namespace reprise::client {

PrefetchedRuns::PrefetchedRuns(const Clock* clock)
    : clock_(clock != nullptr ? *clock : MonotonicClock()) {}

void PrefetchedRuns::Put(std::shared_ptr<Run> run) {
  std::vector<std::shared_ptr<Run>> over;  // released after the lock
  absl::MutexLock lock(&mu_);
  const absl::Time now = clock_.Now();
  while (!entries_.empty() &&
         (entries_.front().until <= now || entries_.size() >= limits::kPrefetchedRunsMax)) {
    over.push_back(std::move(entries_.front().run));
    entries_.pop_front();
  }
  entries_.push_back({std::move(run), now + limits::kPrefetchTtl});
}

std::shared_ptr<Run> PrefetchedRuns::Take(const Fingerprint& fingerprint,
                                          std::span<const BlockKey> keys, uint32_t first_block) {
  std::shared_ptr<Run> found;
  {
    absl::MutexLock lock(&mu_);
    // A chain's last key stands for all before it.
    const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      const RunOrigin& origin = entry.run->origin();
      return origin.spec->fingerprint == fingerprint && origin.keys.size() == keys.size() &&
             origin.keys.back() == keys.back() && origin.first_block <= first_block;
    });
    if (at == entries_.end()) return nullptr;
    const bool fresh = at->until > clock_.Now();
    found = std::move(at->run);
    entries_.erase(at);
    if (!fresh) return nullptr;
  }
  return found->Intact() ? found : nullptr;
}

void PrefetchedRuns::Clear() {
  std::deque<Entry> entries;
  absl::MutexLock lock(&mu_);
  entries.swap(entries_);
}

}  // namespace reprise::client
