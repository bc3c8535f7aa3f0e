#include "cluster/peer/replicator.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/peer/copy_chain.h"
#include "cluster/peer/peer_links.h"
#include "cluster/peer/replication_queue.h"
#include "cluster/placement/placement.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

PeerLinks::Connect ConnectOver(const ReplicatorOptions& options) {
  if (options.connect) return options.connect;
  return [lanes = options.lanes, nccl = options.nccl,
          name = absl::StrCat("replicator of ", options.self.name)](const Member& peer,
                                                                    absl::Time deadline) {
    return ShardLink::Connect(
        {.address = peer.address, .client_name = name, .lanes = lanes, .nccl = nccl}, deadline);
  };
}

class ReplicatorImpl final : public Replicator {
 public:
  explicit ReplicatorImpl(ReplicatorOptions options)
      : options_(std::move(options)),
        clock_(options_.clock != nullptr ? *options_.clock : MonotonicClock()),
        links_(ConnectOver(options_), clock_),
        queue_(limits::kReplicationThreads, limits::kReplicationQueueBlocksMax),
        short_(/*lanes=*/1, limits::kReplicationQueueBlocksMax) {
    for (size_t lane = 0; lane < limits::kReplicationThreads; ++lane) {
      workers_.emplace_back([this, lane] { Work(lane); });
    }
    watch_ = options_.membership->Watch([this](const std::vector<Member>&) { RetryShort(); });
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
    } else if (job.tenant.name != kDefaultTenant) {
      // A peer takes the tenant from the connection's identity, which is this shard's.
      ++counters_.chains_refused;
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
        retry_at_ = std::min(retry_at_, links_.NextAwake());
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

  // The placement order is taken now: who joins or leaves later moves later chains only.
  Outcome Replicate(const ReplicationJob& job) {
    const uint32_t copies = job.replication != 0 ? job.replication : options_.replication;
    uint32_t made = 1;  // ours
    for (const Member& peer : PeersInOrder(job)) {
      if (made >= copies || Stopping()) break;
      const absl::Time deadline = absl::Now() + options_.deadline;
      const absl::Status status = CopyTo(peer, job, deadline);
      if (status.ok()) ++made;
      if (RefusalReason(status) == kChainGone) return Outcome::kGone;
    }
    return made >= copies ? Outcome::kDone : Outcome::kShort;
  }

  std::vector<Member> PeersInOrder(const ReplicationJob& job) const {
    const std::vector<Member> members = options_.membership->Members();
    std::vector<PlacementMember> candidates;
    std::vector<const Member*> peers;
    for (const Member& member : members) {
      if (member.id == options_.self) continue;
      candidates.push_back({.id = member.id, .weight = member.weight});
      peers.push_back(&member);
    }
    std::vector<Member> ordered;
    for (uint32_t i : PlacementOrder(PlacementKey(job.session_id, job.keys), candidates)) {
      ordered.push_back(*peers[i]);
    }
    return ordered;
  }

  absl::Status CopyTo(const Member& peer, const ReplicationJob& job, absl::Time deadline) {
    absl::StatusOr<std::shared_ptr<ShardLink>> link = links_.Get(peer, deadline);
    if (!link.ok()) {
      if (RefusalReason(link.status()) != "PEER_RESTING") NoteFailure(peer, link.status());
      return link.status();
    }
    const absl::StatusOr<CopiedChain> copied = CopyChain(**link, *options_.source, job, deadline);
    if (copied.ok()) {
      links_.Succeeded(peer);
      absl::MutexLock lock(&mu_);
      counters_.blocks_copied += copied->blocks;
      counters_.bytes_copied += copied->bytes;
      return absl::OkStatus();
    }
    if (RefusalReason(copied.status()) == kChainGone) return copied.status();
    // Without an answer in time the peer is left alone for a while; a refusal is an answer.
    if (absl::IsUnavailable(copied.status()) || absl::IsDeadlineExceeded(copied.status())) {
      links_.Failed(peer);
    }
    NoteFailure(peer, copied.status());
    return copied.status();
  }

  void NoteFailure(const Member& peer, const absl::Status& status) {
    {
      absl::MutexLock lock(&mu_);
      ++counters_.peer_failures;
    }
    if (!options_.log) return;
    options_.log(absl::StrCat("replication to ", peer.id.name, " at ", peer.address,
                              " failed, the next shard is tried: ", status.ToString()));
  }

  bool Stopping() const {
    absl::MutexLock lock(&mu_);
    return stopping_;
  }

  const ReplicatorOptions options_;
  const Clock& clock_;
  PeerLinks links_;
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
          {"replication_chains_refused_total", chains_refused},
          {"replication_blocks_copied_total", blocks_copied},
          {"replication_bytes_copied_total", bytes_copied},
          {"replication_peer_failures_total", peer_failures},
          {"replication_queued_blocks", blocks_queued}};
}

std::unique_ptr<Replicator> Replicator::Create(ReplicatorOptions options) {
  REPRISE_CHECK(options.membership != nullptr && options.source != nullptr);
  return std::make_unique<ReplicatorImpl>(std::move(options));
}

}  // namespace reprise::cluster
