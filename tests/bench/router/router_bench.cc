// reprise-bench-router: how well and how fast a router decides, beside what one would write first.
//
//   hits   8 shards of C blocks each behind the router, against one pooled cache of 8 C (the bound)
//   and round robin speed  decisions and block events per second on one core, against one plain set
//   of keys per shard

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/router/router_engine.h"
#include "service/sizing/trace.h"
#include "tests/bench/support/generated_trace.h"
#include "tests/bench/support/lru_cache.h"

namespace reprise::bench {
namespace {

using Json = nlohmann::json;
using router::FeedId;
using router::RouterEngine;
using sizing::Request;
using sizing::Trace;

constexpr size_t kShards = 8;
constexpr int kRounds = 5;  // of each speed, ours and the control's in turn; the median counts
const Tenant kTenant{"default"};
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

Fingerprint SomeFingerprint() {
  Fingerprint fingerprint;
  fingerprint.bytes.fill(7);
  return fingerprint;
}

BlockEvent EventOf(BlockEvent::Kind kind, std::vector<BlockKey> keys) {
  return {.kind = kind,
          .tenant = kTenant,
          .fingerprint = SomeFingerprint(),
          .keys = std::move(keys),
          .tier = Tier::kDram};
}

// The key of part `part` of a block of the trace.
BlockKey KeyOf(uint64_t block, uint32_t part = 0) {
  BlockKey key;
  std::array<uint64_t, 4> mixed{};
  for (size_t i = 0; i < mixed.size(); ++i)
    mixed[i] = sizing::KeyOfId(block ^ sizing::KeyOfId(part * mixed.size() + i));
  std::memcpy(key.bytes.data(), mixed.data(), sizeof(mixed));
  return key;
}

// The keys of a request, each block of the trace cut into `parts`.
std::vector<BlockKey> KeysOf(const Request& request, uint32_t parts) {
  std::vector<BlockKey> keys;
  keys.reserve(request.blocks.size() * parts);
  for (const uint64_t block : request.blocks) {
    for (uint32_t part = 0; part < parts; ++part) keys.push_back(KeyOf(block, part));
  }
  return keys;
}

// The engine and the feeds of its shards.
class Fleet {
 public:
  Fleet() {
    std::vector<cluster::Member> members;
    for (size_t i = 0; i < kShards; ++i) {
      members.push_back({.id = {absl::StrCat("shard-", i)}, .address = absl::StrCat("h:", i + 1)});
    }
    engine.SetMembers(members, kStart);
    for (size_t i = 0; i < kShards; ++i) {
      feeds_.push_back(engine.BeginFeed(members[i].id));
      sequences_.push_back(0);
      Tell(i, EventOf(BlockEvent::Kind::kSnapshotEnd, {}), kStart);
    }
  }
  template <typename Message>
  void Tell(size_t shard, const Message& message, absl::Time now) {
    engine.Apply(feeds_[shard], ++sequences_[shard], message, now);
  }
  void Beat(absl::Time now) {
    for (size_t i = 0; i < kShards; ++i) Tell(i, ShardHeartbeat{}, now);
    engine.Tick(now);
  }

  RouterEngine engine;

 private:
  std::vector<FeedId> feeds_;
  std::vector<uint64_t> sequences_;
};

struct Hits {
  double ratio = 0;
  double imbalance = 0;  // most requests of a shard over the mean
};

// `choose` names the shard of each request; `stored` is told what a shard stored and dropped.
template <typename Choose, typename Stored>
Hits Replay(const Trace& trace, size_t shards, size_t blocks_each, Choose choose, Stored stored) {
  std::vector<LruCache> caches(shards, LruCache(blocks_each));
  std::vector<double> requests(shards, 0);
  double hits = 0;
  double references = 0;
  for (const Request& request : trace.requests) {
    const size_t shard = choose(request);
    requests[shard] += 1;
    hits += static_cast<double>(caches[shard].Run(request.blocks));
    references += static_cast<double>(request.blocks.size());
    const std::vector<uint64_t> dropped = caches[shard].Store(request.blocks);
    stored(shard, request, dropped);
  }
  const double mean = static_cast<double>(trace.requests.size()) / static_cast<double>(shards);
  return {hits / references, *std::max_element(requests.begin(), requests.end()) / mean};
}

Hits ReplayRouted(const Trace& trace, size_t blocks_each) {
  Fleet fleet;
  absl::Time now = kStart;
  const auto choose = [&](const Request& request) {
    while (now + limits::kHeartbeatInterval < kStart + request.at) {
      now += limits::kHeartbeatInterval;
      fleet.Beat(now);
    }
    now = std::max(now, kStart + request.at);
    const std::vector<BlockKey> keys = KeysOf(request, 1);
    const auto route =
        fleet.engine.RouteSession(kTenant, {.fingerprint = SomeFingerprint(), .keys = keys}, now);
    if (!route.ok()) std::abort();
    return static_cast<size_t>(route->home.id.name.back() - '0');
  };
  const auto stored = [&](size_t shard, const Request& request, std::span<const uint64_t> dropped) {
    fleet.Tell(shard, EventOf(BlockEvent::Kind::kStored, KeysOf(request, 1)), now);
    if (dropped.empty()) return;
    std::vector<BlockKey> keys;
    for (const uint64_t block : dropped) keys.push_back(KeyOf(block));
    fleet.Tell(shard, EventOf(BlockEvent::Kind::kRemoved, std::move(keys)), now);
  };
  return Replay(trace, kShards, blocks_each, choose, stored);
}

Json HitTable(const Trace& trace) {
  Json rows = Json::array();
  std::printf(
      "\nhit ratio, 8 shards (goals: >= 0.97x pooled, >= 2.5x round robin, max/mean <= 1.05)\n");
  std::printf("%10s %8s %8s %8s %10s %10s %10s\n", "blocks", "pooled", "routed", "robin",
              "x pooled", "x robin", "max/mean");
  const auto nothing = [](size_t, const Request&, std::span<const uint64_t>) {};
  for (size_t blocks : {2500, 6250}) {
    const Hits pooled = Replay(
        trace, 1, kShards * blocks, [](const Request&) { return size_t{0}; }, nothing);
    size_t next = 0;
    const Hits robin = Replay(
        trace, kShards, blocks, [&](const Request&) { return next++ % kShards; }, nothing);
    const Hits routed = ReplayRouted(trace, blocks);
    std::printf("%10zu %8.4f %8.4f %8.4f %9.3fx %9.2fx %10.3f\n", blocks, pooled.ratio,
                routed.ratio, robin.ratio, routed.ratio / pooled.ratio, routed.ratio / robin.ratio,
                routed.imbalance);
    rows.push_back({{"blocks_per_shard", blocks},
                    {"pooled", pooled.ratio},
                    {"routed", routed.ratio},
                    {"round_robin", robin.ratio},
                    {"imbalance", routed.imbalance}});
  }
  return rows;
}

// One plain set of keys per shard, walked block by block.
class NaiveRouter {
 public:
  void Store(size_t shard, std::span<const BlockKey> keys) {
    sets_[shard].insert(keys.begin(), keys.end());
  }
  size_t Choose(std::span<const BlockKey> keys) {
    size_t best = 0;
    double best_cost = 0;
    for (size_t shard = 0; shard < kShards; ++shard) {
      size_t run = 0;
      while (run < keys.size() && sets_[shard].contains(keys[run])) ++run;
      const double cost = 1 - static_cast<double>(run) / static_cast<double>(keys.size()) +
                          limits::kLoadWeight * load_[shard];
      if (shard == 0 || cost < best_cost) {
        best = shard;
        best_cost = cost;
      }
    }
    load_[best] += 1.0 / 1024;
    return best;
  }

 private:
  struct HashKey {
    size_t operator()(const BlockKey& key) const { return key.Prefix64(); }
  };
  std::array<std::unordered_set<BlockKey, HashKey>, kShards> sets_;
  std::array<double, kShards> load_{};
};

double Seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

struct Speed {
  double per_second = 0;
  double p50_us = 0;
  double p99_us = 0;
};

template <typename Ask>
Speed Measure(std::span<const std::vector<BlockKey>> prompts, Ask ask) {
  std::vector<double> times;
  times.reserve(prompts.size());
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& keys : prompts) {
    const auto before = std::chrono::steady_clock::now();
    ask(keys);
    times.push_back(Seconds(std::chrono::steady_clock::now() - before) * 1e6);
  }
  const double total = Seconds(std::chrono::steady_clock::now() - begin);
  std::sort(times.begin(), times.end());
  return {static_cast<double>(prompts.size()) / total, times[times.size() / 2],
          times[times.size() * 99 / 100]};
}

Speed Median(std::vector<Speed> speeds) {
  std::sort(speeds.begin(), speeds.end(),
            [](const Speed& a, const Speed& b) { return a.per_second < b.per_second; });
  return speeds[speeds.size() / 2];
}

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Each request's blocks, stored where round robin over conversations would have them.
Json SpeedTable(const Trace& trace, uint32_t parts, size_t requests_max) {
  std::vector<std::vector<BlockKey>> prompts;
  size_t blocks = 0;
  for (const Request& request : trace.requests) {
    if (prompts.size() >= requests_max) break;
    prompts.push_back(KeysOf(request, parts));
    blocks += prompts.back().size();
  }
  std::vector<Speed> ours, located, naive;
  std::vector<double> our_events, naive_events;
  for (int round = 0; round < kRounds; ++round) {
    Fleet fleet;
    auto begin = std::chrono::steady_clock::now();
    for (size_t i = 0; i < prompts.size(); ++i) {
      fleet.Tell(i % kShards, EventOf(BlockEvent::Kind::kStored, prompts[i]), kStart);
    }
    our_events.push_back(static_cast<double>(blocks) /
                         Seconds(std::chrono::steady_clock::now() - begin));
    ours.push_back(Measure(prompts, [&](const std::vector<BlockKey>& keys) {
      const auto route = fleet.engine.RouteSession(
          kTenant, {.fingerprint = SomeFingerprint(), .keys = keys}, kStart);
      if (!route.ok()) std::abort();
    }));
    located.push_back(Measure(prompts, [&](const std::vector<BlockKey>& keys) {
      if (fleet.engine.Locate({kTenant, SomeFingerprint()}, keys, kStart).runs.empty())
        std::abort();
    }));
    auto control = std::make_unique<NaiveRouter>();
    begin = std::chrono::steady_clock::now();
    for (size_t i = 0; i < prompts.size(); ++i) control->Store(i % kShards, prompts[i]);
    naive_events.push_back(static_cast<double>(blocks) /
                           Seconds(std::chrono::steady_clock::now() - begin));
    size_t chosen = 0;
    naive.push_back(Measure(prompts, [&](const auto& keys) { chosen += control->Choose(keys); }));
    if (chosen == ~size_t{0}) std::abort();
  }
  const Speed route = Median(ours);
  const Speed locate = Median(located);
  const Speed control = Median(naive);
  const double events = MedianOf(our_events);
  std::printf("%8u %10zu %11.0f %8.1f %8.1f %11.0f %8.1f %11.0f %8.1f %7.1fx %9.2f %7.2fx\n",
              512 / parts, blocks / prompts.size(), route.per_second, route.p50_us, route.p99_us,
              locate.per_second, locate.p99_us, control.per_second, control.p99_us,
              route.per_second / control.per_second, events / 1e6, events / MedianOf(naive_events));
  return {{"block_tokens", 512 / parts},
          {"blocks_per_prompt", blocks / prompts.size()},
          {"route_per_second", route.per_second},
          {"route_p50_us", route.p50_us},
          {"route_p99_us", route.p99_us},
          {"locate_per_second", locate.per_second},
          {"locate_p99_us", locate.p99_us},
          {"naive_per_second", control.per_second},
          {"naive_p99_us", control.p99_us},
          {"route_over_naive", route.per_second / control.per_second},
          {"events_per_second", events},
          {"events_over_naive", events / MedianOf(naive_events)}};
}

int Main(int argc, char** argv) {
  std::string path = kTracePath;
  bool json = false;
  CLI::App app{"How well and how fast a Reprise router decides."};
  CLI::Option* given = app.add_option("--trace,trace", path, "Requests to replay (JSON lines)");
  app.add_flag("--json", json, "One JSON object on the last line");
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<Trace> trace = TraceFor(path, given->count() > 0);
  if (!trace.ok()) {
    std::fprintf(stderr, "reprise-bench-router: %s\n",
                 std::string(trace.status().message()).c_str());
    return 1;
  }
  double load = 0;
  (void)getloadavg(&load, 1);
  const double infinite = InfiniteHitRatio(*trace);
  std::printf("trace %s: %zu requests, infinite cache hits %.4f; load average %.1f\n",
              trace->name.c_str(), trace->requests.size(), infinite, load);
  Json report = {{"trace", trace->name},           {"requests", trace->requests.size()},
                 {"infinite_hit_ratio", infinite}, {"load_average", load},
                 {"hits", HitTable(*trace)},       {"speed", Json::array()}};
  std::printf(
      "\none core, 8 shards (goals: >= 100k decisions/s, p99 <= 20 us, >= 5x naive, >= 2 M "
      "events/s)\n");
  std::printf("%8s %10s %11s %8s %8s %11s %8s %11s %8s %8s %9s %8s\n", "tokens", "blocks",
              "routes/s", "p50 us", "p99 us", "locates/s", "p99 us", "naive/s", "p99 us", "ratio",
              "Mevents/s", "ratio");
  report["speed"].push_back(SpeedTable(*trace, 1, trace->requests.size()));
  report["speed"].push_back(SpeedTable(*trace, 32, 2000));
  if (json) std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace reprise::bench

int main(int argc, char** argv) {
  return reprise::bench::Main(argc, argv);
}
