#include "cluster/peer/replication_queue.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "cluster/placement/placement.h"

namespace reprise::cluster {
namespace {

size_t Cost(const ReplicationJob& job) {
  return std::max<size_t>(job.keys.size() - std::min<size_t>(job.first_new, job.keys.size()), 1);
}

// The same conversation, grown: the longer chain's copy is the shorter one's too.
bool Extends(const ReplicationJob& longer, const ReplicationJob& shorter) {
  return longer.keys.size() >= shorter.keys.size() && longer.session_id == shorter.session_id &&
         longer.tenant == shorter.tenant &&
         std::equal(shorter.keys.begin(), shorter.keys.end(), longer.keys.begin()) &&
         longer.spec == shorter.spec;
}

}  // namespace

bool ReplicationQueue::empty() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane.empty(); });
}

size_t ReplicationQueue::Push(ReplicationJob job) {
  const size_t lane =
      std::hash<std::string>()(PlacementKey(job.session_id, job.keys)) % lanes_.size();
  std::deque<Waiting>& waiting = lanes_[lane];
  if (!waiting.empty() && Extends(job, waiting.back().job)) {
    job.first_new = std::min(job.first_new, waiting.back().job.first_new);
    blocks_ -= Cost(waiting.back().job);
    waiting.pop_back();
  }
  const size_t cost = Cost(job);
  size_t dropped = 0;
  while (blocks_ > 0 && blocks_ + cost > blocks_max_) {
    DropOldest();
    ++dropped;
  }
  blocks_ += cost;
  waiting.push_back({.number = ++arrived_, .job = std::move(job)});
  return dropped;
}

void ReplicationQueue::DropOldest() {
  std::deque<Waiting>* oldest = nullptr;
  for (std::deque<Waiting>& lane : lanes_) {
    if (lane.empty()) continue;
    if (oldest == nullptr || lane.front().number < oldest->front().number) oldest = &lane;
  }
  blocks_ -= Cost(oldest->front().job);
  oldest->pop_front();
}

std::optional<ReplicationJob> ReplicationQueue::Pop(size_t lane) {
  if (lanes_[lane].empty()) return std::nullopt;
  ReplicationJob job = std::move(lanes_[lane].front().job);
  lanes_[lane].pop_front();
  blocks_ -= Cost(job);
  return job;
}

}  // namespace reprise::cluster
