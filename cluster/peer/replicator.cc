#include "cluster/peer/replicator.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/peer/chain_copier.h"
#include "cluster/peer/replication_queue.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

class ReplicatorImpl final : public Replicator {
 public:
  explicit ReplicatorImpl(ReplicatorOptions options)
      : options_(std::move(options)),
        peers_(*options_.peers),
        clock_(peers_.clock()),
        copier_(peers_, *options_.source, {.batch_time = options_.batch_time}),
        queue_(limits::kReplicationThreads, limits::kReplicationQueueBlocksMax),
        short_(/*lanes=*/1, limits::kReplicationQueueBlocksMax) {
    for (size_t lane = 0; lane < limits::kReplicationThreads; ++lane) {
      workers_.emplace_back([this, lane] { Work(lane); });
    }
    watch_ = peers_.membership().Watch([this](const std::vector<Member>&) { RetryShort(); });
  }

  ~ReplicatorImpl() override {
    watch_.reset();
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    for (std::thread& worker : workers_) worker.join();
  }

  void Submit(ReplicationJob job) override {
    absl::MutexLock lock(&mu_);
    ++counters_.chains_submitted;
    const uint32_t copies = job.replication != 0 ? job.replication : options_.replication;
    if (copies <= 1 || job.keys.empty()) {
      ++counters_.chains_done;
    } else {
      counters_.chains_dropped += queue_.Push(std::move(job));
    }
  }

  ReplicatorCounters counters() const override {
    absl::MutexLock lock(&mu_);
    ReplicatorCounters counters = counters_;
    counters.blocks_queued = queue_.blocks();
    return counters;
  }

  bool WaitIdle(absl::Duration timeout) override {
    absl::MutexLock lock(&mu_);
    const auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return queue_.empty() && running_ == 0;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&idle), timeout);
  }

 private:
  enum class Outcome { kDone, kShort, kGone };

  void Work(size_t lane) {
    absl::MutexLock lock(&mu_);
    const auto wanted = [this, lane]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return stopping_ || queue_.HasWork(lane);
    };
    while (true) {
      if (!mu_.AwaitWithTimeout(absl::Condition(&wanted), retry_at_ - clock_.Now())) {
        if (clock_.Now() >= retry_at_) RequeueShort();
        continue;
      }
      if (stopping_) return;
      std::optional<ReplicationJob> job = queue_.Pop(lane);
      const uint64_t members_seen = members_changed_;
      ++running_;
      mu_.Unlock();
      const Outcome outcome = Replicate(*job);
      mu_.Lock();
      --running_;
      if (outcome == Outcome::kShort) {
        ReplicationQueue& next = members_seen == members_changed_ ? short_ : queue_;
        counters_.chains_dropped += next.Push(*std::move(job));
        retry_at_ = std::min(retry_at_, peers_.NextAwake());
      }
      counters_.chains_done += outcome == Outcome::kDone ? 1 : 0;
      counters_.chains_short += outcome == Outcome::kShort ? 1 : 0;
      counters_.chains_gone += outcome == Outcome::kGone ? 1 : 0;
    }
  }

  // A chain that found too few shards (at the start of a cluster, a shard knows no other one) gets
  // its copies when the members change, or when a shard that did not answer may be asked again.
  void RetryShort() {
    absl::MutexLock lock(&mu_);
    ++members_changed_;
    RequeueShort();
  }

  void RequeueShort() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    retry_at_ = absl::InfiniteFuture();
    while (std::optional<ReplicationJob> job = short_.Pop(0)) {
      counters_.chains_dropped += queue_.Push(*std::move(job));
    }
  }

  Outcome Replicate(const ReplicationJob& job) {
    const uint32_t copies = job.replication != 0 ? job.replication : options_.replication;
    const CopiesMade made =
        copier_.Copy(job, {.copies = copies - 1, .stopped = [this] { return Stopping(); }});
    {
      absl::MutexLock lock(&mu_);
      counters_.blocks_copied += made.blocks;
      counters_.bytes_copied += made.bytes;
    }
    if (made.gone) return Outcome::kGone;
    return made.copies + made.pending + 1 >= copies ? Outcome::kDone : Outcome::kShort;
  }

  bool Stopping() const {
    absl::MutexLock lock(&mu_);
    return stopping_;
  }

  const ReplicatorOptions options_;
  Peers& peers_;
  const Clock& clock_;
  ChainCopier copier_;
  mutable absl::Mutex mu_;
  ReplicationQueue queue_ ABSL_GUARDED_BY(mu_);
  ReplicationQueue short_ ABSL_GUARDED_BY(mu_);  // wait for other members, or for retry_at_
  absl::Time retry_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();  // by clock_
  uint64_t members_changed_ ABSL_GUARDED_BY(mu_) = 0;
  ReplicatorCounters counters_ ABSL_GUARDED_BY(mu_);
  size_t running_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> workers_;
  std::unique_ptr<MembershipWatch> watch_;
};

}  // namespace

std::vector<std::pair<std::string, uint64_t>> ReplicatorCounters::Named() const {
  return {{"replication_chains_submitted_total", chains_submitted},
          {"replication_chains_done_total", chains_done},
          {"replication_chains_short_total", chains_short},
          {"replication_chains_dropped_total", chains_dropped},
          {"replication_chains_gone_total", chains_gone},
          {"replication_blocks_copied_total", blocks_copied},
          {"replication_bytes_copied_total", bytes_copied},
          {"replication_queued_blocks", blocks_queued}};
}

std::unique_ptr<Replicator> Replicator::Create(ReplicatorOptions options) {
  REPRISE_CHECK(options.peers != nullptr && options.source != nullptr);
  return std::make_unique<ReplicatorImpl>(std::move(options));
}

}  // namespace reprise::cluster
