// What `reprise top` shows: two looks at a cluster become one row of rates for each shard. Pure: no
// I/O and no clock.
//
// Invariants: no rate is negative; what a shard counts is in one view and in no other, also what it
// counts while it does not answer.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cli/cluster_view.h"
#include "reprise/v1/router.pb.h"

namespace reprise::cli {

// What is counted between two looks. Sums of the shard's own counters.
enum class Rate : uint8_t {
  kAskedBlocks,  // by Acquire
  kHitBlocks,
  kAskedTokens,
  kHitTokens,
  kStoredBlocks,
  kInBytes,  // by all lanes
  kInViewBytes,
  kInNcclBytes,
  kInTcpBytes,
  kInStreamBytes,
  kOutBytes,
  kOutViewBytes,
  kOutNcclBytes,
  kOutTcpBytes,
  kOutStreamBytes,
  kEvictedBlocks,  // dropped for room
  kDemotedBlocks,  // moved to a slower tier
  kRefusals,       // calls that the shard answered with no
  kErrors,         // blocks lost or wrong, and failures between shards
  kCount,          // not a rate
};
inline constexpr size_t kRates = static_cast<size_t>(Rate::kCount);

// "asked_blocks"
const char* RateName(Rate rate);

// One shard at one look.
struct TopShard {
  ShardReport report;
  absl::Time at;  // of its answer, on a clock that never runs backwards
};

// One look at a cluster.
struct TopSample {
  absl::Time at;               // as TopShard's
  absl::Time wall;             // the same moment for people
  std::string router;          // that answered last; empty: shards were named
  absl::Status router_status;  // not OK: it did not answer, and what follows is of router_at
  absl::Time router_at;        // as TopShard's
  v1::RouterServiceDescribeResponse router_description;
  std::vector<TopShard> shards;
};

struct Rates {
  absl::Duration elapsed;
  std::array<uint64_t, kRates> counted{};
  std::array<double, kRates> per_second{};

  uint64_t Counted(Rate rate) const { return counted[static_cast<size_t>(rate)]; }
  double PerSecond(Rate rate) const { return per_second[static_cast<size_t>(rate)]; }
  // Of the blocks asked for. nullopt: none was.
  std::optional<double> HitShare() const;
};

struct TopTier {
  uint64_t used_bytes = 0;
  uint64_t capacity_bytes = 0;
  bool lost = false;
};

struct TopRow {
  std::string id;       // empty: it never answered
  std::string address;  // empty in the row of all
  std::string state;    // "alive", "draining", ...; "silent": no answer; "gone": no member any more
  std::string note;     // "new", "restarted"; of a silent shard: why
  bool answered = false;
  std::map<v1::Tier, TopTier> tiers;  // the fastest first
  uint64_t blocks = 0;
  uint64_t leases = 0;
  uint64_t attachments = 0;
  std::vector<v1::LaneKind> lanes;  // that it offers
  std::optional<Rates> rates;       // nullopt: there are no two looks to compare

  const std::string& name() const { return id.empty() ? address : id; }
};

struct TopView {
  absl::Time wall;
  absl::Duration elapsed;  // zero: the first look
  std::string router;      // empty: shards were named
  absl::Status router_status;
  absl::Duration router_age;  // of epoch, sessions and the list of shards
  uint64_t epoch = 0;
  uint64_t sessions = 0;
  std::string members_trouble;  // why the router cannot read who belongs to the cluster
  absl::Duration members_trouble_age;
  std::map<std::string, size_t> states;  // shards by state
  std::vector<TopRow> rows;
  TopRow total;             // of those that answered; rates: of those that have any
  size_t rated_shards = 0;  // in total.rates
};

enum class TopOrder : uint8_t {
  kName,    // "shard-9" before "shard-10"
  kMemory,  // the most bytes used first
  kHits,    // the most blocks hit a second
  kBytes,   // the most bytes a second, in and out
};

// `before` nullptr: the first look, which has no rates.
TopView MakeTopView(const TopSample* before, const TopSample& now, TopOrder order);

// What the next look is compared with: `now`, and of a shard that does not answer now its last
// answer in `before`.
TopSample Baseline(const TopSample& before, TopSample now);

}  // namespace reprise::cli
