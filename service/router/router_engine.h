// What a router knows and decides. No gRPC in sight, and time is an argument.
//
// All of it is soft state fed by each shard's feed of block events. A feed has sequence numbers;
// after a gap the shard is watched anew, and what it held before stays on offer until its new
// snapshot is complete. Any number of routers run side by side without knowing each other.
//
// Invariants: a shard that was silent for kHeartbeatsMissedMax heartbeats is in no answer; home is
// a shard that may be written to; the epoch rises with every change of members or states; memory is
// bounded by limits.h.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/failure_detector.h"
#include "cluster/membership/membership.h"
#include "cluster/placement/placement.h"
#include "cluster/placement/topology.h"
#include "proto/types/block_event.h"
#include "proto/types/block_key.h"
#include "proto/types/ids.h"
#include "service/router/block_index.h"
#include "service/router/route_policy.h"
#include "service/router/session_table.h"

namespace reprise::router {

struct RouterEngineOptions {
  Epoch first_epoch{1};  // a router that starts after another one should begin higher
  cluster::FailureDetectorOptions detector;
  SessionTableOptions sessions;
  size_t index_blocks_max = limits::kRouterIndexBlocksMax;
};

// One run of watching one shard. Messages of an older feed of the same shard change nothing.
using FeedId = StrongId<struct FeedIdTag, uint64_t>;

enum class FeedResult : uint8_t {
  kApplied,
  kOver,  // a gap, or this feed is not the shard's newest, or the shard is no member: begin anew or
          // stop
};

struct ShardPlace {
  ShardId id;
  std::string address;
  friend bool operator==(const ShardPlace&, const ShardPlace&) = default;
};

struct LocatedRun {
  ShardPlace shard;
  uint32_t blocks = 0;
  Tier tier = Tier::kDram;  // slowest tier of the run
  absl::Duration age;       // since the shard was last heard
};

struct Located {
  std::vector<LocatedRun> runs;  // longest first; equal lengths: least loaded first
  Epoch epoch;
};

// What computing a block takes the caller.
struct RecomputeCost {
  absl::Duration per_block;
  uint64_t block_bytes = 0;
};

struct RouteQuestion {
  std::string session_id;                  // empty: the first key stands for the session
  std::optional<Fingerprint> fingerprint;  // of the keys; without it: placement only
  std::span<const BlockKey> keys;
  std::optional<RecomputeCost> recompute;  // nullopt: a block elsewhere counts like one nowhere
};

struct Route {
  ShardPlace home;
  std::vector<ShardPlace> fallbacks;  // placement order after home
  std::vector<LocatedRun> runs;       // as Locate answers
  Epoch epoch;
};

struct ShardKnowledge {
  ShardPlace shard;
  cluster::ShardState state = cluster::ShardState::kDead;
  uint64_t blocks = 0;
  uint64_t last_sequence = 0;
  uint64_t resyncs = 0;  // feeds begun after the first
  absl::Duration age;    // since it was last heard; infinite: never
};

// Since the start.
struct RouterCounters {
  uint64_t located = 0;  // Locate found a run
  uint64_t located_nothing = 0;
  uint64_t routed_to_blocks = 0;    // RouteSession: the home has a run
  uint64_t routed_past_blocks = 0;  // another shard has one, and the home has none
  uint64_t routed_nothing = 0;      // no shard has one
  uint64_t routed_nowhere = 0;      // refused: no shard takes writes
  uint64_t feed_gaps = 0;           // feeds that ended because a message was missing
};

struct RouterDescription {
  Epoch epoch;
  uint64_t sessions = 0;
  uint64_t index_blocks = 0;
  uint64_t index_blocks_left_out = 0;
  std::vector<ShardKnowledge> shards;  // by id
  RouterCounters counters;
};

class RouterEngine {
 public:
  explicit RouterEngine(RouterEngineOptions options = {});

  // ---- What is learnt
  // REQUIRES: each id once, at most kShardsMax.
  void SetMembers(std::span<const cluster::Member> members, absl::Time now);
  // None when `shard` is no member.
  FeedId BeginFeed(const ShardId& shard);
  FeedResult Apply(FeedId feed, uint64_t sequence, const BlockEvent& event, absl::Time now);
  FeedResult Apply(FeedId feed, uint64_t sequence, const ShardHeartbeat& heartbeat, absl::Time now);
  // Notices deaths, forgets old sessions and cleans up. A few times per heartbeat.
  void Tick(absl::Time now);

  // ---- What is asked
  Located Locate(const KeySpace& space, std::span<const BlockKey> keys, absl::Time now) const;
  // UNAVAILABLE (reason NO_SHARD) when no shard can take writes.
  absl::StatusOr<Route> RouteSession(const Tenant& tenant, const RouteQuestion& question,
                                     absl::Time now);
  cluster::Topology Topology(absl::Time now) const;
  Epoch epoch() const;
  // Silence of a shard since it was last heard; infinite when it never was or is no member.
  absl::Duration Silence(const ShardId& shard, absl::Time now) const;
  RouterDescription Describe(absl::Time now) const;

 private:
  struct Shard {
    cluster::Member member;
    ShardSerial serial;
    FeedId feed;                          // the newest; none: never begun, or over
    uint64_t last_sequence = 0;           // 0: nothing heard on this feed yet
    std::optional<StreamIndex> complete;  // whose snapshot is complete
    std::optional<StreamIndex> incoming;  // whose snapshot is on its way
    uint64_t feeds = 0;
    ShardHeartbeat heartbeat;
    cluster::ShardState told = cluster::ShardState::kDead;  // as of the last epoch
    LoadMeter load;
  };

  // Lower is better.
  struct Ranked {
    const Shard* shard;
    StreamRun run;
    double load;
  };

  Shard* Accept(FeedId feed, uint64_t sequence, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Shard* ShardOf(FeedId feed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ApplyKeys(Shard& shard, const BlockEvent& event, std::span<const BlockKey> keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndSnapshot(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteSession(const Shard& shard, const BlockEvent& event, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropContents(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  cluster::ShardState StateOf(const Shard& shard, absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void NoteState(Shard& shard, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const Shard* UsableHome(ShardSerial serial, absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::vector<const Shard*> WritableInOrder(absl::string_view placement_key, absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::vector<Ranked> RankedRuns(const KeySpace& space, std::span<const BlockKey> keys,
                                 absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::vector<LocatedRun> ToRuns(std::span<const Ranked> ranked, absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  const Shard* SessionHome(const Tenant& tenant, const RouteQuestion& question,
                           std::span<const Shard* const> order, std::span<const Ranked> runs,
                           absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  const Shard* PromptHome(const RouteQuestion& question, std::span<const Shard* const> order,
                          std::span<const Ranked> runs, absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  RouterCounters CountersNow() const;

  // As RouterCounters. Questions share the lock, so they cannot be guarded by it.
  struct Counts {
    std::atomic<uint64_t> located{0}, located_nothing{0};
    std::atomic<uint64_t> routed_to_blocks{0}, routed_past_blocks{0};
    std::atomic<uint64_t> routed_nothing{0}, routed_nowhere{0};
    std::atomic<uint64_t> feed_gaps{0};
  };
  mutable Counts counts_;

  mutable absl::Mutex mu_;
  Epoch epoch_ ABSL_GUARDED_BY(mu_);
  std::map<ShardId, Shard> shards_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<FeedId, ShardId> feeds_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<ShardSerial, const Shard*> by_serial_ ABSL_GUARDED_BY(mu_);
  std::vector<const Shard*> by_stream_ ABSL_GUARDED_BY(mu_);  // nullptr: retired or never opened
  uint64_t feeds_begun_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t serials_given_ ABSL_GUARDED_BY(mu_) = 0;
  cluster::FailureDetector detector_ ABSL_GUARDED_BY(mu_);
  BlockIndex index_ ABSL_GUARDED_BY(mu_);
  SessionTable sessions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::router
