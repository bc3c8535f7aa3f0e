#include "cluster/link/link_reaper.h"

#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace reprise::cluster {

struct LinkReaper::Dead {
  void Take(std::unique_ptr<ShardLink> link) {
    link->Close();
    absl::MutexLock lock(&mu);
    if (!over) links.push_back(std::move(link));
  }

  void Run() {
    absl::MutexLock lock(&mu);
    const auto wanted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu) { return over || !links.empty(); };
    while (true) {
      mu.Await(absl::Condition(&wanted));
      if (links.empty()) return;
      std::unique_ptr<ShardLink> link = std::move(links.front());
      links.pop_front();
      mu.Unlock();
      link.reset();
      mu.Lock();
    }
  }

  absl::Mutex mu;
  bool over ABSL_GUARDED_BY(mu) = false;
  std::deque<std::unique_ptr<ShardLink>> links ABSL_GUARDED_BY(mu);
};

LinkReaper::LinkReaper() : dead_(std::make_shared<Dead>()) {
  thread_ = std::thread([dead = dead_] { dead->Run(); });
}

LinkReaper::~LinkReaper() {
  {
    absl::MutexLock lock(&dead_->mu);
    dead_->over = true;
  }
  thread_.join();
}

std::shared_ptr<ShardLink> LinkReaper::Own(std::unique_ptr<ShardLink> link) {
  return {link.release(),
          [dead = dead_](ShardLink* ended) { dead->Take(std::unique_ptr<ShardLink>(ended)); }};
}

}  // namespace reprise::cluster
