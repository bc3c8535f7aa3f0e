#include "service/router/router_metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/clock.h"

namespace reprise::router {
namespace {

using cluster::ShardState;
using telemetry::Family;

constexpr ShardState kStates[] = {ShardState::kAlive, ShardState::kDraining, ShardState::kSyncing,
                                  ShardState::kDead};

size_t CountOf(const RouterDescription& engine, ShardState state) {
  return static_cast<size_t>(std::count_if(engine.shards.begin(), engine.shards.end(),
                                           [&](const auto& s) { return s.state == state; }));
}

void AddKnowledge(std::vector<Family>& families, const RouterSnapshot& router) {
  const RouterDescription& engine = router.engine;
  families.push_back(telemetry::Gauge("reprise_topology_epoch",
                                      "Rises with every change of members or of their states.",
                                      static_cast<double>(engine.epoch.value)));
  Family shards = telemetry::Gauge("reprise_shards", "Member shards by state, as seen here.");
  for (const ShardState state : kStates) {
    shards.Add(static_cast<double>(CountOf(engine, state)),
               {{"state", cluster::ShardStateName(state)}});
  }
  families.push_back(std::move(shards));
  const auto gauge = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(telemetry::Gauge(name, help, static_cast<double>(value)));
  };
  gauge("reprise_sessions", "Sessions whose home is remembered.", engine.sessions);
  gauge("reprise_index_blocks", "Blocks in the index, each once per shard that has it.",
        engine.index_blocks);
  gauge("reprise_index_left_out_blocks",
        "Blocks that are stored and not offered, because the index is full.",
        engine.index_blocks_left_out);
  gauge("reprise_topology_watchers", "Watchers of the topology now.", router.topology_watchers);
  gauge("reprise_draining", "1: stops, and wants no more calls.", router.draining ? 1 : 0);
  families.push_back(telemetry::Gauge(
      "reprise_membership_trouble_seconds",
      "For how long the source of the members cannot be read, or not all of it; 0: it can.",
      absl::ToDoubleSeconds(router.membership.TroubledFor(MonotonicClock().Now()))));

  Family blocks = telemetry::Gauge("reprise_shard_index_blocks", "Blocks indexed of a shard.");
  Family silence = telemetry::Gauge("reprise_shard_silence_seconds",
                                    "Since a shard was last heard; +Inf: never.");
  Family resyncs = telemetry::Counter("reprise_shard_resyncs_total",
                                      "Times that a shard's feed was begun anew.");
  for (const ShardKnowledge& shard : engine.shards) {
    const telemetry::Labels labels = {{"shard", shard.shard.id.name}};
    blocks.Add(static_cast<double>(shard.blocks), labels);
    silence.Add(absl::ToDoubleSeconds(shard.age), labels);
    resyncs.Add(static_cast<double>(shard.resyncs), labels);
  }
  for (Family* family : {&blocks, &silence, &resyncs}) families.push_back(std::move(*family));
}

void AddDecisions(std::vector<Family>& families, const RouterCounters& counters) {
  families.push_back(std::move(
      telemetry::Counter("reprise_locates_total",
                         "Locate calls, by whether any shard has a beginning of the prompt.")
          .Add(static_cast<double>(counters.located), {{"outcome", "found"}})
          .Add(static_cast<double>(counters.located_nothing), {{"outcome", "nothing"}})));
  families.push_back(std::move(
      telemetry::Counter("reprise_route_sessions_total",
                         "RouteSession calls: the home has a beginning of the prompt, another "
                         "shard alone has one, none has, or there was no shard to name.")
          .Add(static_cast<double>(counters.routed_to_blocks), {{"outcome", "at_home"}})
          .Add(static_cast<double>(counters.routed_past_blocks), {{"outcome", "elsewhere"}})
          .Add(static_cast<double>(counters.routed_nothing), {{"outcome", "nothing"}})
          .Add(static_cast<double>(counters.routed_nowhere), {{"outcome", "no_shard"}})));
  families.push_back(telemetry::Counter("reprise_feed_gaps_total",
                                        "Feeds that ended because an event was missing.",
                                        static_cast<double>(counters.feed_gaps)));
}

std::string MembersFact(const cluster::MembershipState& membership) {
  return membership.trouble.empty() ? membership.source
                                    : absl::StrCat(membership.source, ": ", membership.trouble);
}

}  // namespace

std::vector<Family> ToFamilies(const RouterSnapshot& router) {
  std::vector<Family> families;
  AddKnowledge(families, router);
  AddDecisions(families, router.engine.counters);
  return families;
}

telemetry::StatusPage ToPage(const RouterSnapshot& router) {
  const RouterDescription& engine = router.engine;
  telemetry::StatusTable shards{.title = "Shards",
                                .columns = {"shard", "address", "state", "blocks", "heard ago"}};
  for (const ShardKnowledge& shard : engine.shards) {
    shards.rows.push_back(
        {shard.shard.id.name, shard.shard.address, cluster::ShardStateName(shard.state),
         absl::StrCat(shard.blocks),
         shard.age == absl::InfiniteDuration()
             ? std::string("never")
             : absl::FormatDuration(absl::Trunc(shard.age, absl::Milliseconds(1)))});
  }
  return {.title = "router",
          .facts = {{"serves", router.address},
                    {"version", router.version},
                    {"up for", absl::FormatDuration(absl::Trunc(router.uptime, absl::Seconds(1)))},
                    {"state", router.draining ? "draining" : "serving"},
                    {"members", MembersFact(router.membership)},
                    {"topology epoch", absl::StrCat(engine.epoch.value)},
                    {"sessions", absl::StrCat(engine.sessions)},
                    {"indexed blocks", absl::StrCat(engine.index_blocks)}},
          .tables = {std::move(shards)}};
}

}  // namespace reprise::router
