// A cluster in the test's own process: real shard engines behind links that a test can break, stop
// and corrupt, and a router that knows what they hold.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "cluster/lanes/in_process/in_process_lane.h"
#include "cluster/placement/placement.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine.h"
#include "tests/support/block_content.h"
#include "tests/support/host_hbm_device.h"

namespace reprise::client::testing {

// What a test does to a shard.
struct Trouble {
  std::atomic<bool> down{false};  // refuses connections; links are dead
  std::atomic<bool> hung{false};  // answers nothing, as under SIGSTOP
  std::atomic<bool> draining{false};
  std::atomic<bool> stuck{false};      // links to it do not end, as with an abort that hangs
  std::atomic<int> die_at_block{-1};   // goes down when it is about to deliver this block of a read
  std::atomic<int> corrupt_block{-1};  // flips a byte of this block of every read
  std::atomic<int> fail_at_write{-1};  // fails this one of the lane's writes
  std::atomic<int> fail_at_block{-1};  // fails the write that begins with this block
  std::atomic<int> refused_reads{0};   // so many from now on are too much at once
  std::atomic<int> fail_at_commit{-1};  // fails this one of the commits
  std::atomic<int> commits{0};
  std::atomic<int> commits_open{0};  // started, and not awaited
  std::atomic<int> commits_open_max{0};
  std::atomic<uint32_t> flows{1};  // as the lane says
  std::atomic<int> reads{0};
  std::atomic<int> writes{0};
  std::atomic<int> acquires{0};
  std::atomic<int> pulls{0};
  // What Pull does; empty: this shard cannot. Set before the first call.
  std::function<absl::StatusOr<cluster::PulledRun>(const cluster::PullCall&)> pull;
  std::atomic<int> hints{0};
  // What Hint does; empty: what the engine does. Set before the first call.
  std::function<absl::StatusOr<HintResult>(const cluster::HintCall&)> hint;
  std::atomic<uint32_t> replication{1};  // as it tells those who open a spec

  // What a call on a hung or dead shard comes to; OK when it is well.
  absl::Status Endure(absl::Time deadline) const {
    while (hung && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(2));
    if (hung) return absl::DeadlineExceededError("no answer");
    return down ? absl::UnavailableError("connection reset") : absl::OkStatus();
  }
};

// Passes blocks on until a test's trouble strikes.
class TroubledSink final : public lanes::BlockSink {
 public:
  TroubledSink(lanes::BlockSink& sink, Trouble& trouble) : sink_(sink), trouble_(trouble) {}
  std::span<uint8_t> Buffer(uint32_t i) override { return sink_.Buffer(i); }
  absl::Status Complete(uint32_t i) override { return sink_.Complete(i); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    if (trouble_.die_at_block == static_cast<int>(i)) {
      trouble_.down = true;
      return absl::UnavailableError("connection reset");
    }
    if (trouble_.corrupt_block != static_cast<int>(i)) return sink_.Deliver(i, bytes);
    std::vector<uint8_t> flipped(bytes.begin(), bytes.end());
    flipped[flipped.size() / 2] ^= 1;
    return sink_.Deliver(i, flipped);
  }

 private:
  lanes::BlockSink& sink_;
  Trouble& trouble_;
};

// Either delivers in place or through the caller's buffers, as a stream does.
class TroubledLane final : public lanes::Lane {
 public:
  TroubledLane(shard::ShardEngine& engine, AttachmentId attachment, Trouble& trouble)
      : lane_(&engine, attachment), trouble_(trouble) {}
  LaneKind kind() const override { return LaneKind::kStream; }
  uint32_t flows() const override { return trouble_.flows; }
  absl::Status Read(const lanes::ReadJob& job, lanes::BlockSink& sink,
                    absl::Time deadline) override {
    ++trouble_.reads;
    if (trouble_.refused_reads > 0 && trouble_.refused_reads-- > 0) {
      return absl::ResourceExhaustedError("too much at once");
    }
    REPRISE_RETURN_IF_ERROR(trouble_.Endure(deadline));
    TroubledSink troubled(sink, trouble_);
    return lane_.Read(job, troubled, deadline);
  }
  absl::Status Write(const lanes::WriteJob& job, lanes::BlockSource& source,
                     absl::Time deadline) override {
    if (trouble_.writes++ == trouble_.fail_at_write ||
        static_cast<int>(job.blocks.front()) == trouble_.fail_at_block) {
      return absl::UnavailableError("reset");
    }
    REPRISE_RETURN_IF_ERROR(trouble_.Endure(deadline));
    return lane_.Write(job, source, deadline);
  }

 private:
  lanes::InProcessLane lane_;
  Trouble& trouble_;
};

class FakeShard {
 public:
  explicit FakeShard(std::string name, uint64_t dram_bytes = 8 << 20, uint64_t hbm_bytes = 0)
      : id_{std::move(name)},
        address_(absl::StrCat(id_.name, ":1")),
        dram_bytes_(dram_bytes),
        hbm_bytes_(hbm_bytes) {
    Restart();
  }

  // Everything that it held is gone, and so is every attachment.
  void Restart() {
    auto engine = shard::ShardEngine::Create(
        {.id = id_,
         .dram_bytes = dram_bytes_,
         .hbm_bytes = hbm_bytes_,
         .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(hbm),
         .background_eviction = false});
    REPRISE_CHECK(engine.ok());
    absl::MutexLock lock(&mu_);
    engine_ = *std::move(engine);
    trouble.down = false;
  }

  std::shared_ptr<shard::ShardEngine> engine() const {
    absl::MutexLock lock(&mu_);
    return engine_;
  }
  const ShardId& id() const { return id_; }
  const std::string& address() const { return address_; }
  uint64_t Described(const std::string& what) const {
    const auto description = engine()->Describe(Tenant{"default"});
    return what == "leases"         ? description.leases
           : what == "reservations" ? description.reservations
                                    : description.blocks;
  }

  mutable Trouble trouble;
  const std::shared_ptr<reprise::testing::HostHbmControl> hbm =
      std::make_shared<reprise::testing::HostHbmControl>();

 private:
  const ShardId id_;
  const std::string address_;
  const uint64_t dram_bytes_;
  const uint64_t hbm_bytes_;
  mutable absl::Mutex mu_;
  std::shared_ptr<shard::ShardEngine> engine_ ABSL_GUARDED_BY(mu_);
};

class FakeLink final : public cluster::ShardLink {
 public:
  FakeLink(FakeShard& shard, AttachmentId attachment)
      : shard_(shard),
        engine_(shard.engine()),
        attachment_(attachment),
        lane_(*engine_, attachment, shard.trouble) {}
  ~FakeLink() override {
    while (shard_.trouble.stuck) absl::SleepFor(absl::Milliseconds(2));
    engine_->Detach(attachment_);
  }

  bool alive() const override { return !shard_.trouble.down && shard_.engine() == engine_; }
  bool draining() const override { return shard_.trouble.draining; }
  const ShardId& shard_id() const override { return shard_.id(); }
  lanes::Lane& lane() override { return lane_; }

  absl::StatusOr<cluster::OpenedSpec> OpenSpec(const CacheSpec& spec,
                                               absl::Time deadline) override {
    absl::MutexLock lock(&mu_);
    for (const auto& [known, opened] : specs_) {
      if (known == spec) return opened;
    }
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    REPRISE_ASSIGN_OR_RETURN(const auto answer, engine_->OpenSpec(attachment_, spec, std::nullopt));
    cluster::OpenedSpec opened{.handle = answer.handle,
                               .fingerprint = answer.fingerprint,
                               .block_bytes = answer.block_bytes,
                               .replication = shard_.trouble.replication};
    specs_.emplace_back(spec, opened);
    return opened;
  }
  absl::StatusOr<uint32_t> Lookup(SpecHandle spec, std::span<const BlockKey> keys,
                                  absl::Time deadline) override {
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    REPRISE_ASSIGN_OR_RETURN(const auto answer, engine_->Lookup(attachment_, spec, keys));
    return answer.run_blocks;
  }
  absl::StatusOr<cluster::AcquiredRun> Acquire(SpecHandle spec, std::span<const BlockKey> keys,
                                               uint32_t first_block, absl::Time deadline) override {
    ++shard_.trouble.acquires;
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    REPRISE_ASSIGN_OR_RETURN(
        auto answer,
        engine_->Acquire(attachment_, {.spec = spec, .keys = keys, .first_block = first_block}));
    return cluster::AcquiredRun{.lease = answer.lease,
                                .run_blocks = answer.run_blocks,
                                .first_block = first_block,
                                .checksums = answer.checksums,
                                .tiers = answer.tiers};
  }
  absl::Status Release(LeaseId lease, absl::Time deadline) override {
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    const std::vector<LeaseId> leases = {lease};
    return engine_->Release(attachment_, leases).status();
  }
  absl::StatusOr<cluster::ReservedRun> Reserve(const cluster::ReserveCall& call,
                                               absl::Time deadline) override {
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    REPRISE_ASSIGN_OR_RETURN(auto answer,
                             engine_->Reserve(attachment_, {.spec = call.spec,
                                                            .keys = call.keys,
                                                            .session_id = call.session_id,
                                                            .token_ids = call.token_ids}));
    return cluster::ReservedRun{.reservation = answer.reservation, .outcomes = answer.outcomes};
  }
  absl::StatusOr<cluster::CommittedRun> Commit(ReservationId reservation,
                                               std::span<const uint32_t> blocks,
                                               std::span<const Checksum128> checksums,
                                               absl::Time deadline) override {
    Trouble& trouble = shard_.trouble;
    if (trouble.commits++ == trouble.fail_at_commit) return absl::InternalError("no commit");
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    REPRISE_ASSIGN_OR_RETURN(
        const auto answer,
        engine_->Commit(attachment_,
                        {.reservation = reservation, .blocks = blocks, .checksums = checksums}));
    return cluster::CommittedRun{.committed = answer.committed, .duplicate = answer.duplicate};
  }
  // As late as can be: the shard commits when the answer is waited for.
  std::unique_ptr<cluster::PendingCommit> StartCommit(ReservationId reservation,
                                                      std::span<const uint32_t> blocks,
                                                      std::span<const Checksum128> checksums,
                                                      absl::Time deadline) override {
    return std::make_unique<LateCommit>(*this, reservation, blocks, checksums, deadline);
  }
  absl::StatusOr<cluster::PulledRun> Pull(const cluster::PullCall& call,
                                          absl::Time deadline) override {
    ++shard_.trouble.pulls;
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    if (!shard_.trouble.pull) return absl::UnimplementedError("no Pull here");
    return shard_.trouble.pull(call);
  }
  absl::StatusOr<HintResult> Hint(const cluster::HintCall& call, absl::Time deadline) override {
    ++shard_.trouble.hints;
    REPRISE_RETURN_IF_ERROR(Well(deadline));
    if (shard_.trouble.hint) return shard_.trouble.hint(call);
    return engine_->Hint(attachment_, {.spec = call.spec, .keys = call.keys, .hint = call.hint});
  }

 private:
  class LateCommit final : public cluster::PendingCommit {
   public:
    LateCommit(FakeLink& link, ReservationId reservation, std::span<const uint32_t> blocks,
               std::span<const Checksum128> checksums, absl::Time deadline)
        : link_(link),
          reservation_(reservation),
          blocks_(blocks.begin(), blocks.end()),
          checksums_(checksums.begin(), checksums.end()),
          deadline_(deadline) {
      Trouble& trouble = link.shard_.trouble;
      const int open = ++trouble.commits_open;
      trouble.commits_open_max = std::max(trouble.commits_open_max.load(), open);
    }
    ~LateCommit() override {
      if (!answer_.has_value()) --link_.shard_.trouble.commits_open;
    }
    absl::StatusOr<cluster::CommittedRun> Await(absl::Time deadline) override {
      if (answer_.has_value()) return *answer_;
      --link_.shard_.trouble.commits_open;
      answer_ = link_.Commit(reservation_, blocks_, checksums_, std::min(deadline, deadline_));
      return *answer_;
    }

   private:
    FakeLink& link_;
    std::optional<absl::StatusOr<cluster::CommittedRun>> answer_;
    const ReservationId reservation_;
    const std::vector<uint32_t> blocks_;
    const std::vector<Checksum128> checksums_;
    const absl::Time deadline_;
  };

  absl::Status Well(absl::Time deadline) const {
    REPRISE_RETURN_IF_ERROR(shard_.trouble.Endure(deadline));
    return alive() ? absl::OkStatus() : absl::UnavailableError("the shard restarted");
  }

  FakeShard& shard_;
  const std::shared_ptr<shard::ShardEngine> engine_;
  const AttachmentId attachment_;
  TroubledLane lane_;
  absl::Mutex mu_;
  std::vector<std::pair<CacheSpec, cluster::OpenedSpec>> specs_ ABSL_GUARDED_BY(mu_);
};

class FakeCluster {
 public:
  class Queries final : public ShardQueries {
   public:
    absl::StatusOr<Explanation> Explain(const std::string& address, const ExplainQuery&,
                                        absl::Time) override {
      if (address == "shard-0:1") return absl::UnavailableError("gone");
      Explanation explanation;
      explanation.run_blocks = address == "shard-1:1" ? 3 : 1;
      explanation.reason = MissReason::kNeverStored;
      explanation.sentence = address;
      return explanation;
    }
  };

  explicit FakeCluster(int shards, uint64_t dram_bytes = 8 << 20, uint64_t hbm_bytes = 0) {
    for (int i = 0; i < shards; ++i) {
      shards_.push_back(
          std::make_unique<FakeShard>(absl::StrCat("shard-", i), dram_bytes, hbm_bytes));
    }
  }

  std::vector<std::unique_ptr<FakeShard>>& shards() { return shards_; }
  std::atomic<bool> router_down{false};
  std::atomic<bool> router_blind{false};            // answers, and knows of no block
  std::atomic<FakeShard*> router_errs_on{nullptr};  // says that this one holds every block
  std::atomic<FakeShard*> router_home{nullptr};     // is every session's home
  std::atomic<bool> router_holds{false};  // what is asked in the background, until HearRouters
  std::atomic<int> router_calls{0};
  std::atomic<int> router_questions{0};       // of them: in the background
  std::atomic<int64_t> compute_block_ns{-1};  // as the last one said

  // In placement order, whether they live or not.
  FakeShard& Placed(const std::string& session, size_t rank) {
    std::vector<ShardId> ids;
    for (const auto& shard : shards_) ids.push_back(shard->id());
    const ShardId id = cluster::PlacementOrder(session, ids)[rank];
    for (const auto& shard : shards_) {
      if (shard->id() == id) return *shard;
    }
    std::abort();
  }
  FakeShard& Home(const std::string& session) { return Placed(session, 0); }

  // The answers to what was asked in the background and held, whether anybody waits or not.
  void HearRouters() {
    std::vector<std::function<void()>> answers;
    {
      absl::MutexLock lock(&mu_);
      answers.swap(held_);
    }
    for (const auto& answer : answers) answer();
  }

  std::unique_ptr<Client> MakeClient(ClientOptions options = {}, const Clock* clock = nullptr) {
    const bool with_shards = !options.shards.empty();
    if (!with_shards) options.routers = {"router:1"};
    ClientSeams seams;
    seams.connect = [this](const cluster::ShardLinkOptions& link, absl::Time deadline) {
      return Connect(link, deadline);
    };
    if (!with_shards) seams.router = std::make_unique<Router>(*this);
    seams.queries = std::make_unique<Queries>();
    seams.clock = clock;
    auto client = Client::CreateWith(std::move(options), std::move(seams));
    REPRISE_CHECK(client.ok());
    return *std::move(client);
  }

 private:
  class Router final : public RouterClient {
   public:
    explicit Router(FakeCluster& cluster) : cluster_(cluster) {}
    absl::StatusOr<Route> RouteSession(const RouteCall& call, absl::Time) override {
      ++cluster_.router_calls;
      cluster_.compute_block_ns = absl::ToInt64Nanoseconds(call.compute_block);
      if (cluster_.router_down) return absl::UnavailableError("connection refused");
      Route route;
      const std::string key = cluster::PlacementKey(call.session, call.keys);
      for (size_t i = 0; i < cluster_.shards_.size(); ++i) {
        const FakeShard& shard = cluster_.Placed(key, i);
        if (!shard.trouble.down) route.order.push_back({shard.id(), shard.address()});
      }
      if (route.order.empty()) return absl::UnavailableError("no shard is alive");
      if (const FakeShard* const home = cluster_.router_home; home != nullptr) {
        std::stable_partition(
            route.order.begin(), route.order.end(),
            [home](const ShardTarget& target) { return target.id == home->id(); });
      }
      route.runs_known = !call.keys.empty();
      if (!cluster_.router_blind) AddRuns(call, route);
      return route;
    }
    std::unique_ptr<PendingRoute> StartRouteSession(const RouteCall& call, absl::Time deadline,
                                                    RouteHeard heard) override {
      ++cluster_.router_questions;
      absl::StatusOr<Route> route = RouteSession(call, deadline);
      auto hear = [route, heard = std::move(heard)] {
        if (route.ok()) heard(*route);
      };
      if (cluster_.router_holds) {
        absl::MutexLock lock(&cluster_.mu_);
        cluster_.held_.push_back(hear);
        return std::make_unique<HeldRoute>(std::move(route), std::move(hear));
      }
      hear();
      return std::make_unique<AnsweredRoute>(std::move(route));
    }
    absl::StatusOr<std::vector<ShardTarget>> Shards(absl::Time) override {
      std::vector<ShardTarget> all;
      for (const auto& shard : cluster_.shards_) all.push_back({shard->id(), shard->address()});
      return all;
    }

   private:
    // Answered when somebody waits for it.
    class AnsweredRoute final : public PendingRoute {
     public:
      explicit AnsweredRoute(absl::StatusOr<Route> answer) : answer_(std::move(answer)) {}
      absl::StatusOr<Route> Await(absl::Time) override { return answer_; }

     private:
      const absl::StatusOr<Route> answer_;
    };
    class HeldRoute final : public PendingRoute {
     public:
      HeldRoute(absl::StatusOr<Route> route, std::function<void()> hear)
          : route_(std::move(route)), hear_(std::move(hear)) {}
      absl::StatusOr<Route> Await(absl::Time) override {
        hear_();
        return route_;
      }

     private:
      const absl::StatusOr<Route> route_;
      const std::function<void()> hear_;
    };

    void AddRuns(const RouteCall& call, Route& route) {
      for (const auto& shard : cluster_.shards_) {
        if (shard->trouble.down) continue;
        auto explained =
            shard->engine()->Explain(Tenant{"default"}, call.fingerprint, call.keys, {});
        if (explained.ok() && explained->run_blocks > 0) {
          route.runs.push_back(
              {{shard->id(), shard->address()}, explained->run_blocks, Tier::kDram});
        }
      }
      if (FakeShard* const wrong = cluster_.router_errs_on; wrong != nullptr) {
        route.runs.push_back({{wrong->id(), wrong->address()},
                              static_cast<uint32_t>(call.keys.size()),
                              Tier::kDram});
      }
      std::sort(route.runs.begin(), route.runs.end(),
                [](const LocatedRun& a, const LocatedRun& b) { return a.blocks > b.blocks; });
    }
    FakeCluster& cluster_;
  };

  absl::StatusOr<std::unique_ptr<cluster::ShardLink>> Connect(
      const cluster::ShardLinkOptions& options, absl::Time deadline) {
    for (const auto& shard : shards_) {
      if (shard->address() != options.address) continue;
      REPRISE_RETURN_IF_ERROR(shard->trouble.Endure(deadline));
      REPRISE_ASSIGN_OR_RETURN(const AttachmentId attachment,
                               shard->engine()->Attach(Tenant{"default"}, options.client_name));
      return std::make_unique<FakeLink>(*shard, attachment);
    }
    return absl::UnavailableError("connection refused");
  }

  std::vector<std::unique_ptr<FakeShard>> shards_;
  absl::Mutex mu_;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client::testing
