// reprise-bench-eviction: what the order in which a shard drops blocks is worth, and what it costs.
//
//   hits   the learned order beside LRU and S3-FIFO, which are easier to write, and OPT, the bound
//   cost   a use in EvictionOrder beside one in a list; a block told to ReuseCurve
//
// Goals (on the conversations of Mooncake): at 5,000 blocks >= 1.3 x LRU and >= 43 % of OPT, up to
// 20,000 no less than LRU, up to 50,000 >= .96 x LRU.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/eviction/eviction_order.h"
#include "service/sizing/replay.h"
#include "service/sizing/reuse_curve.h"
#include "tests/bench/eviction/opt_cache.h"
#include "tests/bench/eviction/s3_fifo_cache.h"
#include "tests/bench/support/generated_trace.h"
#include "tests/bench/support/lru_cache.h"

namespace reprise::bench {
namespace {

using Json = nlohmann::json;
using shard::Eviction;
using shard::EvictionOrder;
using shard::ReuseCurve;
using sizing::Trace;

constexpr size_t kSizesBlocks[] = {1'000, 2'000, 5'000, 10'000, 20'000, 30'000, 50'000};
constexpr size_t kCostBlocks = 32'768;    // stored while the cost of a use is measured,
constexpr size_t kCostPromptBlocks = 32;  //   in chains of so many
constexpr int kUsesOfEach = 40;
constexpr int kRounds = 7;  // of ours and of the control in turn; the median counts

// `serve` takes a prompt's blocks and returns how many it found.
template <typename Serve>
double HitRatio(const Trace& trace, Serve serve) {
  size_t hits = 0;
  size_t references = 0;
  for (const sizing::Request& request : trace.requests) {
    hits += serve(request.blocks);
    references += request.blocks.size();
  }
  return static_cast<double>(hits) / static_cast<double>(references);
}

double LearnedRatio(const Trace& trace, size_t blocks, double references) {
  const uint64_t hit_tokens = sizing::ShardHitTokens(trace, blocks, Eviction::kLearned);
  return static_cast<double>(hit_tokens) / (references * trace.block_tokens);
}

Json HitTable(const Trace& trace) {
  const auto references = static_cast<double>(sizing::TotalsOf(trace).blocks);
  Json rows = Json::array();
  std::printf(
      "\nhit ratio (goals: at 5,000 >= 1.3 x LRU and >= .43 x OPT, at 20,000 >= 1 x LRU,\n"
      "at 50,000 >= .96 x LRU)\n%8s %8s %8s %8s %8s %8s %8s\n",
      "blocks", "LRU", "S3-FIFO", "learned", "OPT", "x LRU", "x OPT");
  for (const size_t blocks : kSizesBlocks) {
    LruCache lru_cache(blocks);
    const double lru = HitRatio(trace, [&](const std::vector<uint64_t>& prompt) {
      const size_t run = lru_cache.Run(prompt);
      lru_cache.Store(prompt);
      return run;
    });
    S3FifoCache s3_cache(blocks);
    const double s3 = HitRatio(trace, [&](const auto& prompt) { return s3_cache.Serve(prompt); });
    OptCache opt_cache(trace, blocks);
    const double opt = HitRatio(trace, [&](const auto& prompt) { return opt_cache.Serve(prompt); });
    const double learned = LearnedRatio(trace, blocks, references);
    std::printf("%8zu %8.4f %8.4f %8.4f %8.4f %7.3fx %7.3fx\n", blocks, lru, s3, learned, opt,
                learned / lru, learned / opt);
    rows.push_back({{"blocks", blocks},
                    {"lru", lru},
                    {"s3_fifo", s3},
                    {"learned", learned},
                    {"opt", opt},
                    {"learned_over_lru", learned / lru},
                    {"learned_over_opt", learned / opt}});
  }
  return rows;
}

template <typename Run>
double NanosecondsEach(size_t times, Run run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / static_cast<double>(times);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The prompts whose blocks are stored and used, block b of them being number b of all.
std::vector<std::vector<uint64_t>> CostPrompts() {
  std::vector<std::vector<uint64_t>> prompts(kCostBlocks / kCostPromptBlocks);
  for (size_t block = 0; block < kCostBlocks; ++block)
    prompts[block / kCostPromptBlocks].push_back(sizing::KeyOfId(block));
  return prompts;
}

// Prompts come in an order that is neither that of memory nor that of the last use.
size_t PromptAt(size_t turn) {
  constexpr size_t kStride = 389;
  return turn * kStride % (kCostBlocks / kCostPromptBlocks);
}

// What a use costs; one block in kCostPromptBlocks is an end.
double UseNanoseconds(Eviction kind) {
  EvictionOrder order(kind);
  absl::Time now = absl::UnixEpoch();
  for (uint32_t block = 0; block < kCostBlocks; ++block) {
    order.Track(block, 0, sizing::KeyOfId(block), now);
    if (block % kCostPromptBlocks != 0) order.SetEnd(block - 1, false);
  }
  return NanosecondsEach(kUsesOfEach * kCostBlocks, [&] {
    for (size_t turn = 0; turn < kUsesOfEach * kCostBlocks / kCostPromptBlocks; ++turn) {
      now += limits::kReuseApart;
      const size_t first = PromptAt(turn) * kCostPromptBlocks;
      for (size_t i = kCostPromptBlocks; i-- > 0;) order.Use(static_cast<uint32_t>(first + i), now);
    }
  });
}

double ListNanoseconds(const std::vector<std::vector<uint64_t>>& prompts) {
  LruCache cache(kCostBlocks);
  for (const auto& prompt : prompts) cache.Store(prompt);
  return NanosecondsEach(kUsesOfEach * kCostBlocks, [&] {
    for (size_t turn = 0; turn < kUsesOfEach * kCostBlocks / kCostPromptBlocks; ++turn)
      cache.Store(prompts[PromptAt(turn)]);
  });
}

// `samples_max`: SIZE_MAX: every block is followed.
double AskNanoseconds(const std::vector<std::vector<uint64_t>>& prompts, size_t samples_max) {
  constexpr uint64_t kBlockBytes = 2 << 20;
  constexpr uint32_t kBlockTokens = 16;
  ReuseCurve curve(ReuseCurve::kNoHorizon, samples_max);
  return NanosecondsEach(kUsesOfEach * kCostBlocks, [&] {
    for (size_t turn = 0; turn < kUsesOfEach * kCostBlocks / kCostPromptBlocks; ++turn) {
      const std::vector<uint64_t>& prompt = prompts[PromptAt(turn)];
      for (size_t i = prompt.size(); i-- > 0;) curve.Ask(prompt[i], kBlockBytes, kBlockTokens);
    }
  });
}

Json CostTable() {
  const std::vector<std::vector<uint64_t>> prompts = CostPrompts();
  std::vector<double> list, lru, learned, ask_all, ask;
  for (int round = 0; round < kRounds; ++round) {
    list.push_back(ListNanoseconds(prompts));
    lru.push_back(UseNanoseconds(Eviction::kLru));
    learned.push_back(UseNanoseconds(Eviction::kLearned));
    ask_all.push_back(AskNanoseconds(prompts, ~size_t{0}));
    // As a large shard has it: one block in 32 is followed.
    ask.push_back(AskNanoseconds(prompts, kCostBlocks / 32));
  }
  std::printf("\nns per use, %zu blocks in prompts of %zu\n%-32s %8s %8s\n", kCostBlocks,
              kCostPromptBlocks, "", "ns", "x list");
  Json rows = Json::object();
  const auto row = [&](const char* name, const char* field, const std::vector<double>& values) {
    const double value = Median(values);
    std::printf("%-32s %8.1f %7.2fx\n", name, value, value / Median(list));
    rows[field] = value;
    rows[absl::StrCat(field, "_over_list")] = value / Median(list);
  };
  row("std::list and hash map", "list_ns", list);
  row("EvictionOrder::Use, LRU", "use_lru_ns", lru);
  row("EvictionOrder::Use, learned", "use_learned_ns", learned);
  row("ReuseCurve::Ask, all followed", "ask_all_ns", ask_all);
  row("ReuseCurve::Ask, 1 in 32 followed", "ask_ns", ask);
  return rows;
}

int Main(int argc, char** argv) {
  std::string path = kTracePath;
  bool json = false;
  CLI::App app{"What the order in which a Reprise shard drops blocks is worth, and what it costs."};
  const CLI::Option* given =
      app.add_option("--trace,trace", path, "Requests to replay (JSON lines)");
  app.add_flag("--json", json, "One JSON object on the last line");
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<Trace> trace = TraceFor(path, given->count() > 0);
  if (!trace.ok()) {
    std::fprintf(stderr, "reprise-bench-eviction: %s\n",
                 std::string(trace.status().message()).c_str());
    return 1;
  }
  double load = 0;
  (void)getloadavg(&load, 1);
  const double infinite = InfiniteHitRatio(*trace);
  std::printf("trace %s: %zu requests, infinite cache hits %.4f; load average %.1f\n",
              trace->name.c_str(), trace->requests.size(), infinite, load);
  const Json report = {{"trace", trace->name},           {"requests", trace->requests.size()},
                       {"infinite_hit_ratio", infinite}, {"load_average", load},
                       {"hits", HitTable(*trace)},       {"cost", CostTable()}};
  if (json) std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace reprise::bench

int main(int argc, char** argv) {
  return reprise::bench::Main(argc, argv);
}
