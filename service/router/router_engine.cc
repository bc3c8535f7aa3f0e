// The half of RouterEngine that answers.
#include "service/router/router_engine.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::router {

using cluster::ShardState;

namespace {

ShardPlace PlaceOf(const cluster::Member& member) {
  return {member.id, member.address};
}

void Count(std::atomic<uint64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

std::vector<RouterEngine::Ranked> RouterEngine::RankedRuns(const KeySpace& space,
                                                           std::span<const BlockKey> keys,
                                                           absl::Time now) const {
  std::vector<Ranked> ranked;
  for (const StreamRun& run : index_.Runs(space, keys)) {
    const Shard* shard = by_stream_[run.stream];
    if (shard == nullptr || !detector_.IsAlive(shard->member.id, now)) continue;
    // While a shard resyncs, its old feed and its new one both speak for it.
    const auto same = std::find_if(ranked.begin(), ranked.end(),
                                   [&](const Ranked& r) { return r.shard == shard; });
    if (same == ranked.end()) {
      ranked.push_back({shard, run, shard->load.At(now)});
    } else if (same->run.blocks < run.blocks) {
      same->run = run;
    }
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::tie(b.run.blocks, a.load, a.shard->member.id) <
           std::tie(a.run.blocks, b.load, b.shard->member.id);
  });
  return ranked;
}

std::vector<LocatedRun> RouterEngine::ToRuns(std::span<const Ranked> ranked, absl::Time now) const {
  std::vector<LocatedRun> runs;
  runs.reserve(std::min(ranked.size(), limits::kLocateRunsMax));
  for (const Ranked& r : ranked.first(std::min(ranked.size(), limits::kLocateRunsMax))) {
    runs.push_back({.shard = PlaceOf(r.shard->member),
                    .blocks = r.run.blocks,
                    .tier = r.run.tier,
                    .age = detector_.Silence(r.shard->member.id, now)});
  }
  return runs;
}

Located RouterEngine::Locate(const KeySpace& space, std::span<const BlockKey> keys,
                             absl::Time now) const {
  absl::ReaderMutexLock lock(&mu_);
  Located located{.runs = ToRuns(RankedRuns(space, keys, now), now), .epoch = epoch_};
  Count(located.runs.empty() ? counts_.located_nothing : counts_.located);
  return located;
}

const RouterEngine::Shard* RouterEngine::UsableHome(ShardSerial serial, absl::Time now) const {
  const auto it = by_serial_.find(serial);
  if (it == by_serial_.end()) return nullptr;
  return cluster::IsWritable(StateOf(*it->second, now)) ? it->second : nullptr;
}

std::vector<const RouterEngine::Shard*> RouterEngine::WritableInOrder(
    absl::string_view placement_key, absl::Time now) const {
  std::vector<const Shard*> writable;
  std::vector<cluster::PlacementMember> members;
  writable.reserve(shards_.size());
  members.reserve(shards_.size());
  for (const auto& [id, shard] : shards_) {
    if (!cluster::IsWritable(StateOf(shard, now))) continue;
    writable.push_back(&shard);
    members.push_back({id, shard.member.weight});
  }
  std::vector<const Shard*> order;
  order.reserve(writable.size());
  for (uint32_t index : cluster::PlacementOrder(placement_key, members)) {
    order.push_back(writable[index]);
  }
  return order;
}

// A session stays where it is while that shard lives; else it goes where most of it is; else where
// placement says.
const RouterEngine::Shard* RouterEngine::SessionHome(const Tenant& tenant,
                                                     const RouteQuestion& question,
                                                     std::span<const Shard* const> order,
                                                     std::span<const Ranked> runs,
                                                     absl::Time now) const {
  const SessionTable::Session* known = sessions_.Find(tenant, question.session_id, now);
  if (known == nullptr) return order.front();
  if (const Shard* home = UsableHome(known->home, now); home != nullptr) return home;
  const Shard* best = order.front();
  uint32_t best_blocks = 0;
  for (const Shard* shard : order) {
    for (const Ranked& r : runs) {
      if (r.shard != shard || r.run.blocks <= best_blocks) continue;
      best = shard;
      best_blocks = r.run.blocks;
    }
  }
  return best;
}

const RouterEngine::Shard* RouterEngine::PromptHome(const RouteQuestion& question,
                                                    std::span<const Shard* const> order,
                                                    std::span<const Ranked> runs,
                                                    absl::Time now) const {
  if (runs.empty()) return order.front();
  std::vector<RouteCandidate> candidates;
  candidates.reserve(order.size());
  for (const Shard* shard : order) {
    const auto run =
        std::find_if(runs.begin(), runs.end(), [&](const Ranked& r) { return r.shard == shard; });
    RouteCandidate candidate{.run_blocks = run == runs.end() ? 0 : run->run.blocks,
                             .load = shard->load.At(now)};
    if (question.recompute.has_value()) {
      candidate.move = MoveCostOf(question.recompute->per_block, question.recompute->block_bytes,
                                  shard->heartbeat.peer_bytes_per_second);
    }
    candidates.push_back(candidate);
  }
  return order[ChooseShard(candidates, question.keys.size())];
}

absl::StatusOr<Route> RouterEngine::RouteSession(const Tenant& tenant,
                                                 const RouteQuestion& question, absl::Time now) {
  const std::string key = cluster::PlacementKey(question.session_id, question.keys);
  absl::MutexLock lock(&mu_);
  const std::vector<const Shard*> order = WritableInOrder(key, now);
  if (order.empty()) {
    Count(counts_.routed_nowhere);
    return Refusal(absl::StatusCode::kUnavailable, "NO_SHARD",
                   absl::StrCat("none of ", shards_.size(),
                                " shards is alive and takes writes: work without the cache and "
                                "ask again later"));
  }
  std::vector<Ranked> runs;
  if (question.fingerprint.has_value()) {
    runs = RankedRuns({tenant, *question.fingerprint}, question.keys, now);
  }
  const bool has_session = !question.session_id.empty();
  const Shard* home = has_session ? SessionHome(tenant, question, order, runs, now)
                                  : PromptHome(question, order, runs, now);
  const bool at_home =
      std::any_of(runs.begin(), runs.end(), [&](const Ranked& r) { return r.shard == home; });
  Count(at_home        ? counts_.routed_to_blocks
        : runs.empty() ? counts_.routed_nothing
                       : counts_.routed_past_blocks);
  Route route = {.home = PlaceOf(home->member), .runs = ToRuns(runs, now), .epoch = epoch_};
  route.fallbacks.reserve(order.size());
  for (const Shard* shard : order) {
    if (shard != home) route.fallbacks.push_back(PlaceOf(shard->member));
  }
  shards_.find(home->member.id)->second.load.Add(now);
  if (has_session) {
    sessions_.Put(tenant, question.session_id, {.home = home->serial, .routed = true}, now);
  }
  return route;
}

cluster::Topology RouterEngine::Topology(absl::Time now) const {
  absl::ReaderMutexLock lock(&mu_);
  cluster::Topology topology = {.epoch = epoch_};
  for (const auto& [id, shard] : shards_) {
    topology.shards.push_back({.id = id,
                               .address = shard.member.address,
                               .weight = shard.member.weight,
                               .state = shard.told,
                               .used_bytes = shard.heartbeat.used_bytes,
                               .capacity_bytes = shard.heartbeat.capacity_bytes});
  }
  return topology;
}

Epoch RouterEngine::epoch() const {
  absl::ReaderMutexLock lock(&mu_);
  return epoch_;
}

absl::Duration RouterEngine::Silence(const ShardId& shard, absl::Time now) const {
  absl::ReaderMutexLock lock(&mu_);
  return detector_.Silence(shard, now);
}

RouterCounters RouterEngine::CountersNow() const {
  return {.located = counts_.located,
          .located_nothing = counts_.located_nothing,
          .routed_to_blocks = counts_.routed_to_blocks,
          .routed_past_blocks = counts_.routed_past_blocks,
          .routed_nothing = counts_.routed_nothing,
          .routed_nowhere = counts_.routed_nowhere,
          .feed_gaps = counts_.feed_gaps};
}

RouterDescription RouterEngine::Describe(absl::Time now) const {
  absl::ReaderMutexLock lock(&mu_);
  RouterDescription description = {.epoch = epoch_,
                                   .sessions = sessions_.size(),
                                   .index_blocks = index_.blocks(),
                                   .index_blocks_left_out = index_.blocks_left_out(),
                                   .shards = {},
                                   .counters = CountersNow()};
  for (const auto& [id, shard] : shards_) {
    const std::optional<StreamIndex> stream = shard.complete ? shard.complete : shard.incoming;
    description.shards.push_back({.shard = PlaceOf(shard.member),
                                  .state = StateOf(shard, now),
                                  .blocks = stream.has_value() ? index_.stream_blocks(*stream) : 0,
                                  .last_sequence = shard.last_sequence,
                                  .resyncs = shard.feeds == 0 ? 0 : shard.feeds - 1,
                                  .age = detector_.Silence(id, now)});
  }
  return description;
}

}  // namespace reprise::router
