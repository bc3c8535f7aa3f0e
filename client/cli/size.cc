// `reprise size`: what more, or less, memory would serve: of the prompts that a cluster was asked
// for, or of a trace of requests.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/child_process.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "nlohmann/json.hpp"
#include "proto/types/refusal.h"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;
using Shard = v1::ShardServiceDescribeResponse;

constexpr uint64_t kBlocksMeaningful = 1000;  // asked for; of fewer, the shares are chance
constexpr uint64_t kBlockTokens = 16;         // of blocks of a spec that is not shown to us
constexpr double kWorthSaying = 0.01;         // of the prompt tokens

struct SizeOptions {
  Common common;
  Where where;
  std::string trace;
};

// So much memory in all shards together.
struct Point {
  uint64_t memory_bytes = 0;
  uint64_t hit_tokens = 0;
};

// All shards that answered.
struct Sizing {
  size_t shards = 0;
  uint64_t capacity_bytes = 0;
  uint64_t asked_tokens = 0;
  uint64_t block_tokens = 0;
  uint64_t hit_tokens = 0;  // served, as they counted it
  uint64_t miss_tokens = 0;
  std::vector<Point> points;  // the least memory first

  bool meaningful() const { return asked_tokens >= kBlocksMeaningful * block_tokens; }
  double Share(uint64_t tokens) const {
    return asked_tokens == 0 ? 0 : static_cast<double>(tokens) / static_cast<double>(asked_tokens);
  }
  std::optional<double> Measured() const {
    const uint64_t tokens = hit_tokens + miss_tokens;
    if (tokens == 0) return std::nullopt;
    return static_cast<double>(hit_tokens) / static_cast<double>(tokens);
  }
  double Times(const Point& point) const {
    return static_cast<double>(point.memory_bytes) / static_cast<double>(capacity_bytes);
  }
  // The point of so many times the memory. nullptr: there is none.
  const Point* At(double times) const {
    constexpr double kNear = 0.01;
    const auto it = std::find_if(points.begin(), points.end(), [&](const Point& point) {
      return std::abs(Times(point) / times - 1) < kNear;
    });
    return it == points.end() ? nullptr : &*it;
  }
};

uint64_t CounterOf(const Shard& shard, absl::string_view name) {
  for (const auto& counter : shard.counters()) {
    if (counter.name() == name) return counter.value();
  }
  return 0;
}

// Of each shard the same multiples of its memory. False, and nothing is added: it tells none, or
// others than those before.
bool Add(const Shard& shard, Sizing& sizing) {
  const auto& points = shard.sizing().points();
  if (points.empty()) return false;
  if (sizing.shards > 0 && static_cast<size_t>(points.size()) != sizing.points.size()) return false;
  ++sizing.shards;
  sizing.points.resize(static_cast<size_t>(points.size()));
  for (int i = 0; i < points.size(); ++i) {
    sizing.points[static_cast<size_t>(i)].memory_bytes += points[i].memory_bytes();
    sizing.points[static_cast<size_t>(i)].hit_tokens += points[i].hit_tokens();
  }
  for (const auto& tier : shard.tiers()) sizing.capacity_bytes += tier.capacity_bytes();
  for (const auto& spec : shard.specs())
    sizing.block_tokens = std::max<uint64_t>(sizing.block_tokens, spec.spec().block_tokens());
  sizing.asked_tokens += shard.sizing().asked_tokens();
  sizing.hit_tokens += CounterOf(shard, "hit_tokens_total");
  sizing.miss_tokens += CounterOf(shard, "miss_tokens_total");
  return true;
}

std::string PercentText(double share) {
  return absl::StrFormat("%.1f %%", 100 * share);
}

// "1/4", "2"
std::string TimesText(double times) {
  return times < 1 ? absl::StrFormat("1/%.3g", 1 / times) : absl::StrFormat("%.3g", times);
}

// One sentence of what to do about the memory.
std::string Advice(const Sizing& sizing) {
  if (sizing.asked_tokens == 0) {
    return "Nothing was asked for yet, so that nothing can be said: ask again after some work.";
  }
  if (!sizing.meaningful()) {
    return absl::StrCat("Only ", sizing.asked_tokens, " tokens were asked for yet, less than ",
                        kBlocksMeaningful,
                        " blocks: this does not mean anything, ask again after more work.");
  }
  const Point* const now = sizing.At(1);
  if (now == nullptr) return "The shards do not say what the memory that they have would serve.";
  const double served = sizing.Share(now->hit_tokens);
  const Point* more = nullptr;  // the least that is worth it
  const Point* less = nullptr;  // the least that costs nothing
  for (const Point& point : sizing.points) {
    const double share = sizing.Share(point.hit_tokens);
    if (&point < now && less == nullptr && served - share < kWorthSaying) less = &point;
    if (&point > now && more == nullptr && share - served >= kWorthSaying) more = &point;
  }
  if (more != nullptr) {
    const double times = sizing.Times(*more);
    return absl::StrCat(times == 2 ? "Twice" : absl::StrCat(TimesText(times), " times"),
                        " the memory (", HumanBytes(more->memory_bytes), ") would serve ",
                        PercentText(sizing.Share(more->hit_tokens)),
                        " of the prompt tokens instead of ", PercentText(served), ".");
  }
  if (less != nullptr) {
    return absl::StrCat(TimesText(sizing.Times(*less)), " of the memory (",
                        HumanBytes(less->memory_bytes), ") would serve ",
                        PercentText(sizing.Share(less->hit_tokens)),
                        " of the prompt tokens, and all of it serves ", PercentText(served),
                        ": more would gain nothing.");
  }
  return "The memory is about right: less would serve less, and more would gain nothing.";
}

void PrintText(const Sizing& sizing) {
  std::vector<std::vector<std::string>> rows;
  for (const Point& point : sizing.points) {
    rows.push_back({HumanBytes(point.memory_bytes),
                    absl::StrCat("x ", TimesText(sizing.Times(point))),
                    PercentText(sizing.Share(point.hit_tokens))});
  }
  std::printf("%zu %s, %llu tokens asked for since the start\n\n%s\n", sizing.shards,
              sizing.shards == 1 ? "shard" : "shards",
              static_cast<unsigned long long>(sizing.asked_tokens),
              Table({"MEMORY", "OF NOW", "LRU WOULD SERVE"}, rows).c_str());
  if (const std::optional<double> measured = sizing.Measured()) {
    std::printf("Served so far, from what they had: %s.\n", PercentText(*measured).c_str());
  }
  std::printf(
      "%s\nThat is of memory that drops the least recently used, from a sample of what was asked "
      "for; a prompt that is\nlooked up at two shards counts at both.\n",
      Advice(sizing).c_str());
}

Json JsonOf(const Sizing& sizing, const ClusterReport& report) {
  Json json = {{"shards", sizing.shards},
               {"capacity_bytes", sizing.capacity_bytes},
               {"asked_tokens", sizing.asked_tokens},
               {"meaningful", sizing.meaningful()},
               {"measured_hit_tokens", sizing.hit_tokens},
               {"measured_miss_tokens", sizing.miss_tokens},
               {"order", "lru"},
               {"points", Json::array()},
               {"advice", Advice(sizing)},
               {"silent", Json::array()}};
  for (const Point& point : sizing.points) {
    json["points"].push_back({{"memory_bytes", point.memory_bytes},
                              {"of_capacity", sizing.Times(point)},
                              {"hit_tokens", point.hit_tokens},
                              {"served", sizing.Share(point.hit_tokens)}});
  }
  for (const ShardReport& shard : report.shards) {
    if (!shard.status.ok()) json["silent"].push_back(shard.address);
  }
  return json;
}

absl::StatusOr<ClusterReport> Ask(const Where& where) {
  Waiting waiting("asking the shards");
  return DescribeCluster(where);
}

ExitCode SizeCluster(const SizeOptions& options) {
  const absl::StatusOr<ClusterReport> report = Ask(options.where);
  if (!report.ok()) return Complain(report.status());
  Sizing sizing;
  for (const ShardReport& shard : report->shards) {
    if (!shard.status.ok()) {
      std::fprintf(stderr, "reprise: %s\n", std::string(shard.status.message()).c_str());
    } else if (!Add(shard.description, sizing)) {
      std::fprintf(stderr, "reprise: shard %s is of another version and left out\n",
                   shard.shard_id.c_str());
    }
  }
  if (sizing.shards == 0) return ExitCode::kUnreachable;
  if (sizing.block_tokens == 0) sizing.block_tokens = kBlockTokens;
  if (options.common.json()) {
    PrintJson(JsonOf(sizing, *report));
  } else {
    PrintText(sizing);
  }
  return ExitCode::kOk;
}

// Returns only when it failed: the model is another executable, which has the shard's own order of
// eviction.
ExitCode ReplayTrace(const SizeOptions& options, const std::vector<std::string>& more) {
  const absl::StatusOr<std::string> executable = FindExecutable("reprise-size");
  if (!executable.ok()) return Complain(executable.status());
  std::vector<std::string> words = {*executable, "--trace", options.trace, "-o",
                                    options.common.output};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(executable->c_str(), arguments.data());
  return Complain(absl::InternalError(absl::StrCat(*executable, ": ", std::strerror(errno))));
}

ExitCode Size(const SizeOptions& options, const std::vector<std::string>& more) {
  if (!options.trace.empty()) return ReplayTrace(options, more);
  if (more.empty()) return SizeCluster(options);
  return Complain(Refusal(absl::StatusCode::kInvalidArgument, "ARGUMENT",
                          absl::StrCat(more.front(),
                                       " is no argument of a cluster's size: leave it "
                                       "out, or add --trace FILE")));
}

}  // namespace

Registered AddSize(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "size", "what more or less memory would serve: of a cluster, or of a trace of requests");
  auto options = std::make_shared<SizeOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option(
      "--trace", options->trace,
      "requests to replay instead of asking a cluster, whose options are then not looked at; the "
      "other arguments are reprise-size's, see `reprise-size --help`");
  command->allow_extras();
  return {command, [options, command] { return Size(*options, command->remaining()); }};
}

}  // namespace reprise::cli
