#include "cluster/peer/drain.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/peer/chain_copier.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

class DrainImpl final : public Drain {
 public:
  explicit DrainImpl(DrainOptions options) : options_(std::move(options)) {}

  ~DrainImpl() override {
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }

  void Start(absl::Time deadline) override {
    std::thread over;
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      if (progress_.begun && !progress_.done) {
        deadline_ = std::min(deadline_, deadline);
        return;
      }
      over = std::move(thread_);
      deadline_ = deadline;
      progress_.begun = true;
      progress_.done = false;
      thread_ = std::thread([this] { Run(); });
    }
    if (over.joinable()) over.join();
  }

  DrainProgress progress() const override {
    absl::MutexLock lock(&mu_);
    return progress_;
  }

  bool Await(absl::Time deadline) override {
    absl::MutexLock lock(&mu_);
    const auto done = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return progress_.begun && progress_.done;
    };
    return mu_.AwaitWithDeadline(absl::Condition(&done), deadline);
  }

 private:
  // The chains of one moment, and how many copies of each are known.
  struct Round {
    std::unique_ptr<StoredChains> chains;
    std::vector<std::atomic<uint32_t>> copies;
    std::atomic<bool> unsettled = false;  // somebody else was writing some of it
    std::atomic<bool> alone = false;      // no peer answers
    std::atomic<int> silences = 0;        // chains in a row for which none did
    std::atomic<uint32_t> blocks = 0;

    explicit Round(std::unique_ptr<StoredChains> stored)
        : chains(std::move(stored)), copies(chains->size()) {}
  };

  using ChainName = std::tuple<Tenant, Fingerprint, BlockKey>;
  static ChainName NameOf(const Round& round, size_t i) {
    return {round.chains->tenant(i), round.chains->fingerprint(i), round.chains->last(i)};
  }

  void Run() {
    const uint64_t share = options_.capacity_bytes / (options_.peers->count() + 1);
    ChainCopier copier(*options_.peers, *options_.source,
                       {.doing = "handing blocks to", .displaced_bytes_max = share});
    for (int rounds = 0; rounds < limits::kDrainRoundsMax && !Stopped(); ++rounds) {
      Round round(options_.source->Chains());
      Begin(round);
      const auto wanted =
          std::min<uint32_t>(options_.replication, static_cast<uint32_t>(options_.peers->count()));
      for (uint32_t copies = 1; copies <= wanted && !round.alone; ++copies) {
        Pass(copier, round, copies);
      }
      if (round.alone || (round.blocks == 0 && !round.unsettled)) break;
    }
    absl::MutexLock lock(&mu_);
    progress_.done = true;
  }

  // What an earlier round found safe is not asked for again.
  void Begin(Round& round) {
    absl::MutexLock lock(&mu_);
    progress_.chains = round.chains->size();
    progress_.chains_safe = 0;
    for (size_t i = 0; i < round.copies.size(); ++i) {
      const auto safe = safe_.find(NameOf(round, i));
      if (safe == safe_.end()) continue;
      round.copies[i] = safe->second;
      ++progress_.chains_safe;
    }
  }

  // Brings every chain to so many copies. The chains of one first block are one thread's.
  void Pass(ChainCopier& copier, Round& round, uint32_t copies) {
    std::vector<std::thread> threads;
    for (size_t lane = 0; lane < limits::kReplicationThreads; ++lane) {
      threads.emplace_back([&, lane] {
        for (size_t i = 0; i < round.copies.size() && !round.alone && !Stopped(); ++i) {
          if (absl::HashOf(round.chains->first(i)) % limits::kReplicationThreads != lane) continue;
          // One that has none found no peer with room.
          if (round.copies[i] + 1 == copies) Copy(copier, round, i, copies);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void Copy(ChainCopier& copier, Round& round, size_t i, uint32_t copies) {
    const std::optional<ReplicationJob> job = round.chains->Job(i);
    if (!job.has_value()) return;
    const CopiesMade made = copier.Copy(
        *job, {.copies = copies, .deadline = deadline(), .stopped = [this] { return Stopped(); }});
    round.silences = made.reached == 0 ? round.silences + 1 : 0;
    if (made.reached == 0 && !Stopped()) AwaitPeers(round);
    if (made.pending > 0) round.unsettled = true;
    round.blocks += made.blocks;
    absl::MutexLock lock(&mu_);
    progress_.blocks_copied += made.blocks;
    progress_.bytes_copied += made.bytes;
    if (made.copies <= round.copies[i]) return;
    if (round.copies[i] == 0) ++progress_.chains_safe;
    round.copies[i] = made.copies;
    safe_[NameOf(round, i)] = made.copies;
  }

  // Peers that are left alone for a while may be back after it. Those that stop are not.
  void AwaitPeers(Round& round) {
    round.unsettled = true;
    const absl::Duration rest = options_.peers->NextAwake() - options_.peers->clock().Now();
    if (rest == absl::InfiniteDuration() || round.silences >= limits::kBreakerFailuresMax) {
      round.alone = true;
      return;
    }
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithDeadline(absl::Condition(&stopping_), std::min(deadline_, absl::Now() + rest));
  }

  absl::Time deadline() const {
    absl::MutexLock lock(&mu_);
    return deadline_;
  }
  bool Stopped() const {
    absl::MutexLock lock(&mu_);
    return stopping_ || absl::Now() >= deadline_;
  }

  const DrainOptions options_;
  mutable absl::Mutex mu_;
  DrainProgress progress_ ABSL_GUARDED_BY(mu_);
  // The copies that a chain has elsewhere.
  absl::flat_hash_map<ChainName, uint32_t> safe_ ABSL_GUARDED_BY(mu_);
  absl::Time deadline_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace

std::vector<std::pair<std::string, uint64_t>> DrainProgress::Named() const {
  return {{"drain_chains", chains},
          {"drain_chains_safe", chains_safe},
          {"drain_blocks_copied_total", blocks_copied},
          {"drain_bytes_copied_total", bytes_copied}};
}

std::string DrainProgress::Sentence() const {
  return absl::StrCat(chains_safe, " of ", chains, " chains are on other shards, ", blocks_copied,
                      " blocks were copied");
}

std::unique_ptr<Drain> Drain::Create(DrainOptions options) {
  REPRISE_CHECK(options.peers != nullptr && options.source != nullptr);
  return std::make_unique<DrainImpl>(std::move(options));
}

}  // namespace reprise::cluster
