#include "service/shard/shard_metrics.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/types/clock.h"
#include "proto/types/status_macros.h"
#include "service/telemetry/counters.h"

namespace reprise::shard {
namespace {

using telemetry::Family;
using telemetry::Labels;

// One of the engine's counters as a sample. Rows of one family stand together.
struct CounterRow {
  const char* counter;  // as CounterName says
  const char* family;
  const char* help;
  const char* label = nullptr;  // nullptr: none
  const char* value = nullptr;
};

constexpr char kEvicted[] = "Blocks dropped to make room, by why room was needed.";
constexpr char kExpired[] = "What ended because nobody renewed it in time.";
constexpr char kHinted[] = "Blocks that a hint dropped, or moved to a slower tier.";
constexpr char kRefused[] = "Requests refused, by reason.";

constexpr CounterRow kCounterRows[] = {
    {"lookups_total", "reprise_lookups_total", "Lookup calls."},
    {"acquires_total", "reprise_acquires_total", "Acquire calls."},
    {"hit_blocks_total", "reprise_hit_blocks_total", "Blocks asked for by Acquire and stored."},
    {"miss_blocks_total", "reprise_miss_blocks_total",
     "Blocks asked for by Acquire and not stored."},
    {"hit_tokens_total", "reprise_hit_tokens_total", "Tokens of the blocks that Acquire found."},
    {"miss_tokens_total", "reprise_miss_tokens_total",
     "Tokens of the blocks that Acquire did not find."},
    {"read_blocks_total", "reprise_opened_blocks_total",
     "Blocks opened for reading, whichever lane carried them in the end."},
    {"read_bytes_total", "reprise_opened_bytes_total", "Bytes of the blocks opened for reading."},
    {"reserved_blocks_total", "reprise_reserved_blocks_total", "Blocks granted by Reserve."},
    {"pending_blocks_total", "reprise_pending_blocks_total",
     "Blocks that Reserve found being written by somebody else."},
    {"stored_blocks_total", "reprise_stored_blocks_total", "Blocks committed."},
    {"stored_bytes_total", "reprise_stored_bytes_total", "Bytes of the blocks committed."},
    {"duplicate_blocks_total", "reprise_duplicate_blocks_total",
     "Blocks committed a second time: the first bytes stay."},
    {"evicted_watermark_blocks_total", "reprise_evicted_blocks_total", kEvicted, "cause",
     "watermark"},
    {"evicted_own_space_blocks_total", "reprise_evicted_blocks_total", kEvicted, "cause",
     "own_space"},
    {"evicted_reclaim_blocks_total", "reprise_evicted_blocks_total", kEvicted, "cause", "reclaim"},
    {"evicted_quota_blocks_total", "reprise_evicted_blocks_total", kEvicted, "cause", "quota"},
    {"evicted_claimed_blocks_total", "reprise_evicted_claimed_blocks_total",
     "Of reprise_evicted_blocks_total, those on which a claim rested: claims keep more than fits."},
    {"moved_blocks_total", "reprise_moved_blocks_total",
     "Blocks moved between slots of a tier, to empty an extent."},
    {"reclaimed_extents_total", "reprise_reclaimed_extents_total",
     "Extents taken from one key space for another."},
    {"demoted_blocks_total", "reprise_demoted_blocks_total", "Blocks moved to a slower tier."},
    {"demoted_bytes_total", "reprise_demoted_bytes_total",
     "Bytes of the blocks moved to a slower tier."},
    {"demotions_given_up_total", "reprise_demotions_given_up_total",
     "Moves to a slower tier that came to nothing."},
    {"removed_blocks_total", "reprise_removed_blocks_total", "Blocks removed on request."},
    {"hinted_evict_blocks_total", "reprise_hinted_blocks_total", kHinted, "hint", "evict"},
    {"hinted_demote_blocks_total", "reprise_hinted_blocks_total", kHinted, "hint", "demote"},
    {"claims_placed_total", "reprise_claims_placed_total", "Claims placed by Hint."},
    {"claims_clipped_total", "reprise_claims_clipped_total",
     "Claims that could not keep all of their prefix: claims may keep no more here."},
    {"claims_ended_total", "reprise_claims_ended_total", "Claims that ended at their time."},
    {"quarantined_blocks_total", "reprise_quarantined_blocks_total",
     "Blocks hidden because their bytes were wrong, and what hung from them."},
    {"lost_blocks_total", "reprise_lost_blocks_total", "Blocks lost with the device of a tier."},
    {"restored_blocks_total", "reprise_restored_blocks_total",
     "Blocks of the last process that were found on a kept disk."},
    {"adopted_blocks_total", "reprise_adopted_blocks_total",
     "Restored blocks that waited, for the block before them or to be checked, and are stored."},
    {"unadopted_blocks_total", "reprise_unadopted_blocks_total",
     "Restored blocks that waited and were let go."},
    {"scrubbed_blocks_total", "reprise_scrubbed_blocks_total",
     "Restored blocks that were read and checked after a crash."},
    {"corrupt_blocks_total", "reprise_corrupt_blocks_total",
     "Blocks whose checksum at Commit did not match their bytes."},
    {"expired_leases_total", "reprise_expired_total", kExpired, "what", "lease"},
    {"expired_reservations_total", "reprise_expired_total", kExpired, "what", "reservation"},
    {"expired_attachments_total", "reprise_expired_total", kExpired, "what", "attachment"},
    {"cut_off_watchers_total", "reprise_cut_off_watchers_total",
     "Watchers that fell behind and were ended."},
    {"refused_no_space_total", "reprise_refused_total", kRefused, "reason", "no_space"},
    {"refused_tenant_quota_total", "reprise_refused_total", kRefused, "reason", "tenant_quota"},
    {"refused_claims_total", "reprise_refused_total", kRefused, "reason", "claims"},
    {"refused_attachments_total", "reprise_refused_total", kRefused, "reason", "attachments"},
    {"refused_specs_total", "reprise_refused_total", kRefused, "reason", "specs"},
    {"refused_spec_differs_total", "reprise_refused_total", kRefused, "reason", "spec_differs"},
    {"refused_leases_total", "reprise_refused_total", kRefused, "reason", "leases"},
    {"refused_reservations_total", "reprise_refused_total", kRefused, "reason", "reservations"},
    {"refused_watchers_total", "reprise_refused_total", kRefused, "reason", "watchers"},
    {"refused_not_written_total", "reprise_refused_total", kRefused, "reason", "not_written"},
    {"refused_invalid_total", "reprise_refused_total", kRefused, "reason", "invalid"},
};
static_assert(std::size(kCounterRows) == static_cast<size_t>(Counter::kCount));

uint64_t CounterOf(const ShardSnapshot& shard, absl::string_view name) {
  for (const auto& [counter, value] : shard.engine.counters) {
    if (counter == name) return value;
  }
  return 0;
}

void AddCounters(std::vector<Family>& families, const ShardSnapshot& shard) {
  for (const CounterRow& row : kCounterRows) {
    if (families.empty() || families.back().name != row.family) {
      families.push_back(telemetry::Counter(row.family, row.help));
    }
    Labels labels;
    if (row.label != nullptr) labels.emplace_back(row.label, row.value);
    families.back().Add(static_cast<double>(CounterOf(shard, row.counter)), std::move(labels));
  }
  // The last family is that of the refusals; what the service refuses stands beside the engine's.
  families.back().Add(static_cast<double>(shard.refused_overload), {{"reason", "overload"}});
  families.push_back(telemetry::Counter(
      "reprise_queried_tokens_total", "Tokens of all blocks that Acquire was asked for.",
      static_cast<double>(CounterOf(shard, "hit_tokens_total") +
                          CounterOf(shard, "miss_tokens_total"))));
}

void AddTiers(std::vector<Family>& families, const ShardSnapshot& shard) {
  Family capacity = telemetry::Gauge("reprise_tier_capacity_bytes",
                                     "Memory for blocks; 0: this shard has no such tier.");
  Family used = telemetry::Gauge("reprise_tier_used_bytes",
                                 "Memory in use: stored, being written or held back.");
  Family blocks = telemetry::Gauge("reprise_tier_blocks", "Blocks stored there.");
  Family lost = telemetry::Gauge("reprise_tier_lost", "1: the tier's device is lost.");
  for (const Tier tier : {Tier::kHbm, Tier::kDram, Tier::kNvme}) {
    TierUse use;
    for (const TierUse& have : shard.engine.tiers) {
      if (have.tier == tier) use = have;
    }
    const Labels labels = {{"tier", TierName(tier)}};
    capacity.Add(static_cast<double>(use.capacity_bytes), labels);
    used.Add(static_cast<double>(use.used_bytes), labels);
    blocks.Add(static_cast<double>(use.blocks), labels);
    lost.Add(use.lost ? 1 : 0, labels);
  }
  for (Family* family : {&capacity, &used, &blocks, &lost}) families.push_back(std::move(*family));
}

void AddKeptDisk(std::vector<Family>& families, const ShardSnapshot& shard) {
  const std::optional<KeptDiskUse>& use = shard.engine.kept_disk;
  const bool kept = use.has_value() && use->why_not_kept.empty();
  families.push_back(telemetry::Gauge(
      "reprise_disk_kept", "1: what is on the disk outlives this process.", kept ? 1 : 0));
  families.push_back(
      telemetry::Gauge("reprise_disk_waiting_blocks",
                       "Restored blocks that wait for the block before them, or to be checked.",
                       use.has_value() ? static_cast<double>(use->waiting_blocks) : 0));
}

void AddSizing(std::vector<Family>& families, const ShardSnapshot& shard) {
  Family hits = telemetry::Gauge(
      "reprise_sizing_hit_tokens",
      "Of reprise_queried_tokens_total, what this shard would have found with so many times its "
      "memory: an estimate, as if it dropped the least recently used block.");
  for (const SizingEstimate::Point& point : shard.engine.sizing.points) {
    hits.Add(static_cast<double>(point.hit_tokens), {{"memory", absl::StrCat(point.of_capacity)}});
  }
  families.push_back(std::move(hits));
}

void AddClaims(std::vector<Family>& families, const ShardSnapshot& shard) {
  const ClaimsUse& use = shard.engine.claims;
  Family kept = telemetry::Gauge("reprise_claimed_bytes", "Memory of blocks that claims keep.");
  kept.Add(static_cast<double>(use.claimed_bytes), {{"claims", "all"}});
  kept.Add(static_cast<double>(use.pinned_bytes), {{"claims", "pins"}});
  Family most = telemetry::Gauge("reprise_claimed_bytes_max", "Memory that claims may keep.");
  most.Add(static_cast<double>(use.claimed_bytes_max), {{"claims", "all"}});
  most.Add(static_cast<double>(use.pinned_bytes_max), {{"claims", "pins"}});
  families.push_back(
      telemetry::Gauge("reprise_claims", "Claims now.", static_cast<double>(use.claims)));
  families.push_back(std::move(kept));
  families.push_back(std::move(most));
}

void AddLanes(std::vector<Family>& families, const ShardSnapshot& shard) {
  Family blocks = telemetry::Counter(
      "reprise_lane_blocks_total",
      "Blocks that a lane carried whole: read from this shard or written to it.");
  Family bytes = telemetry::Counter("reprise_lane_bytes_total",
                                    "Bytes of the blocks that a lane carried whole.");
  Family offered = telemetry::Gauge("reprise_lane_offered", "1: this shard offers the lane.");
  const std::pair<LaneKind, const LaneUse&> lanes[] = {{LaneKind::kView, shard.lanes.view},
                                                       {LaneKind::kNccl, shard.lanes.nccl},
                                                       {LaneKind::kTcp, shard.lanes.tcp},
                                                       {LaneKind::kStream, shard.stream}};
  for (const auto& [lane, use] : lanes) {
    const std::string name = LaneKindName(lane);
    blocks.Add(static_cast<double>(use.blocks_read), {{"lane", name}, {"direction", "read"}});
    blocks.Add(static_cast<double>(use.blocks_written), {{"lane", name}, {"direction", "write"}});
    bytes.Add(static_cast<double>(use.bytes_read), {{"lane", name}, {"direction", "read"}});
    bytes.Add(static_cast<double>(use.bytes_written), {{"lane", name}, {"direction", "write"}});
    const bool here = std::count(shard.lanes_offered.begin(), shard.lanes_offered.end(), lane) > 0;
    offered.Add(here ? 1 : 0, {{"lane", name}});
  }
  families.push_back(std::move(blocks));
  families.push_back(std::move(bytes));
  families.push_back(std::move(offered));
  families.push_back(telemetry::Gauge("reprise_tcp_connections", "Connections of the tcp lane now.",
                                      static_cast<double>(shard.lanes.tcp_connections)));
  families.push_back(telemetry::Counter("reprise_tcp_verbs_total",
                                        "Verbs answered on the tcp port, refusals included.",
                                        static_cast<double>(shard.lanes.tcp_verbs)));
  families.push_back(
      std::move(telemetry::Gauge("reprise_nccl_links",
                                 "NCCL links now: served to callers, and made to other shards.")
                    .Add(static_cast<double>(shard.lanes.nccl_links_served), {{"side", "served"}})
                    .Add(static_cast<double>(shard.lanes.nccl_links_made), {{"side", "made"}})));
  families.push_back(telemetry::Counter("reprise_nccl_link_failures_total",
                                        "NCCL links, of both sides, that failed and were aborted.",
                                        static_cast<double>(shard.lanes.nccl_link_failures)));
}

constexpr double kNearQuota = 0.95;  // of the quota: soon a block goes for each that comes

bool NearQuota(const TenantUse& use) {
  return use.quota_bytes != TenantQuotas::kNone &&
         static_cast<double>(use.used_bytes) >= kNearQuota * static_cast<double>(use.quota_bytes);
}

void AddPresence(std::vector<Family>& families, const ShardSnapshot& shard) {
  const auto gauge = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(telemetry::Gauge(name, help, static_cast<double>(value)));
  };
  gauge("reprise_blocks", "Blocks stored, on all tiers.", shard.engine.blocks);
  gauge("reprise_leases", "Leases now.", shard.engine.leases);
  gauge("reprise_reservations", "Reservations now.", shard.engine.reservations);
  gauge("reprise_attachments", "Attached clients now, other shards included.",
        shard.engine.attachments);
  gauge("reprise_tenants", "Tenants that have opened a cache spec here.",
        shard.engine.tenants.size());
  gauge("reprise_tenants_near_quota", "Of them: those that use 95 % of their quota, or more.",
        static_cast<uint64_t>(
            std::count_if(shard.engine.tenants.begin(), shard.engine.tenants.end(), NearQuota)));
  gauge("reprise_watchers", "Watchers of block events now, routers mostly.", shard.engine.watchers);
  gauge("reprise_draining", "1: takes no more writes and hands over what it has.",
        shard.draining ? 1 : 0);
}

void AddPeers(std::vector<Family>& families, const PeersUse& peers) {
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(telemetry::Counter(name, help, static_cast<double>(value)));
  };
  const auto gauge = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(telemetry::Gauge(name, help, static_cast<double>(value)));
  };
  gauge("reprise_peers", "Other shards in the member list.", peers.known);
  families.push_back(telemetry::Gauge(
      "reprise_membership_trouble_seconds",
      "For how long the source of the members cannot be read, or not all of it; 0: it can.",
      absl::ToDoubleSeconds(peers.membership.TroubledFor(MonotonicClock().Now()))));
  counter("reprise_peer_failures_total", "Calls to other shards that went wrong.", peers.failures);
  gauge("reprise_peer_rate_bytes_per_second",
        "Seen lately between this shard and others; 0: nothing moved.", peers.bytes_per_second);
  const cluster::ReplicatorCounters& copies = peers.replication;
  counter("reprise_replication_chains_submitted_total", "Chains that want copies elsewhere.",
          copies.chains_submitted);
  families.push_back(std::move(
      telemetry::Counter("reprise_replication_chains_total",
                         "What became of chains that want copies; short ones wait and try again.")
          .Add(static_cast<double>(copies.chains_done), {{"outcome", "done"}})
          .Add(static_cast<double>(copies.chains_short), {{"outcome", "short"}})
          .Add(static_cast<double>(copies.chains_dropped), {{"outcome", "dropped"}})
          .Add(static_cast<double>(copies.chains_gone), {{"outcome", "gone"}})));
  counter("reprise_replication_blocks_total", "Blocks copied to other shards as they were stored.",
          copies.blocks_copied);
  counter("reprise_replication_bytes_total", "Bytes of those copies.", copies.bytes_copied);
  gauge("reprise_replication_queued_blocks", "Blocks that wait to be copied.",
        copies.blocks_queued);
  counter("reprise_pulls_total", "Chains that this shard was asked to bring from others.",
          peers.pulls.pulls);
  counter("reprise_pulls_failed_total", "Of them: those that ended in an error.",
          peers.pulls.pulls_failed);
  counter("reprise_pulled_blocks_total", "Blocks brought from other shards.", peers.pulls.blocks);
  counter("reprise_pulled_bytes_total", "Bytes brought from other shards.", peers.pulls.bytes);
  gauge("reprise_drain_chains", "Chains that were stored here when the drain looked last.",
        peers.drain.chains);
  gauge("reprise_drain_safe_chains", "Of them: those with a whole copy elsewhere.",
        peers.drain.chains_safe);
  counter("reprise_drain_blocks_total", "Blocks handed over by a drain.",
          peers.drain.blocks_copied);
  counter("reprise_drain_bytes_total", "Bytes handed over by a drain.", peers.drain.bytes_copied);
}

std::string Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? std::string("-") : absl::StrCat(part * 100 / whole, " %");
}

std::string ClaimsText(const ClaimsUse& use) {
  return absl::StrCat(use.claims, ", on ",
                      telemetry::BytesText(static_cast<double>(use.claimed_bytes)), " of at most ",
                      telemetry::BytesText(static_cast<double>(use.claimed_bytes_max)));
}

telemetry::StatusTable TierTable(const ShardSnapshot& shard) {
  telemetry::StatusTable table{.title = "Tiers", .columns = {"tier", "used", "of", "", "blocks"}};
  for (const TierUse& use : shard.engine.tiers) {
    table.rows.push_back({absl::StrCat(TierName(use.tier), use.lost ? " (lost)" : ""),
                          telemetry::BytesText(static_cast<double>(use.used_bytes)),
                          telemetry::BytesText(static_cast<double>(use.capacity_bytes)),
                          Percent(use.used_bytes, use.capacity_bytes), absl::StrCat(use.blocks)});
  }
  return table;
}

telemetry::StatusTable LaneTable(const ShardSnapshot& shard) {
  telemetry::StatusTable table{.title = "Lanes",
                               .columns = {"lane", "blocks read", "blocks written", "not offered"}};
  const std::pair<LaneKind, const LaneUse&> lanes[] = {{LaneKind::kView, shard.lanes.view},
                                                       {LaneKind::kNccl, shard.lanes.nccl},
                                                       {LaneKind::kTcp, shard.lanes.tcp},
                                                       {LaneKind::kStream, shard.stream}};
  for (const auto& [lane, use] : lanes) {
    std::string why;
    for (const AbsentLane& absent : shard.lanes_absent) {
      if (absent.lane == lane) why = absent.why;
    }
    table.rows.push_back({LaneKindName(lane), absl::StrCat(use.blocks_read),
                          absl::StrCat(use.blocks_written), std::move(why)});
  }
  return table;
}

}  // namespace

std::vector<Family> ToFamilies(const ShardSnapshot& shard) {
  std::vector<Family> families;
  AddCounters(families, shard);
  AddTiers(families, shard);
  AddKeptDisk(families, shard);
  AddSizing(families, shard);
  AddClaims(families, shard);
  AddLanes(families, shard);
  AddPresence(families, shard);
  AddPeers(families, shard.peers.value_or(PeersUse()));
  return families;
}

telemetry::StatusPage ToPage(const ShardSnapshot& shard) {
  const uint64_t hits = CounterOf(shard, "hit_tokens_total");
  telemetry::StatusPage page{
      .title = absl::StrCat("shard ", shard.id),
      .facts = {{"serves", shard.address},
                {"version", shard.version},
                {"up for", absl::FormatDuration(absl::Trunc(shard.uptime, absl::Seconds(1)))},
                {"state", shard.draining ? "draining" : "serving"},
                {"hit tokens of those queried",
                 Percent(hits, hits + CounterOf(shard, "miss_tokens_total"))},
                {"leases", absl::StrCat(shard.engine.leases)},
                {"claims", ClaimsText(shard.engine.claims)},
                {"attached clients", absl::StrCat(shard.engine.attachments)},
                {"other shards", shard.peers.has_value() ? absl::StrCat(shard.peers->known)
                                                         : std::string("none: this one is alone")}},
      .tables = {TierTable(shard), LaneTable(shard)}};
  if (shard.peers.has_value() && shard.peers->drain.begun) {
    page.facts.emplace_back("drain", shard.peers->drain.Sentence());
  }
  return page;
}

}  // namespace reprise::shard
