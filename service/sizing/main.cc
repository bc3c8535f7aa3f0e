// reprise-size: what so much memory would serve of a trace of requests, before it is bought.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/quantize/spec_codec.h"
#include "proto/types/cache_spec.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/sizing/replay.h"
#include "service/sizing/trace.h"

namespace reprise::sizing {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSizesShown = 8;   // when none is named
constexpr double kNearlyAll = 0.9;  // of what a cache without a bound would serve
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;     // as of `reprise`: the command line or what it names is wrong,
constexpr int kExitNotFound = 3;  //   or is not there

struct Flags {
  std::string trace;
  TraceOptions cut;
  std::vector<uint64_t> memory_bytes;
  uint32_t replication = 2;
  uint64_t bytes_per_token = 0;
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t mla_latent = 0;
  std::string dtype = "bf16";
  std::string codec = "none";
  double price = 0;         // of a million prompt tokens
  double cached_price = 0;  // of a million that the cache served
  std::string output = "text";
};

// What a size would serve.
struct Row {
  uint64_t memory_bytes = 0;
  uint64_t blocks = 0;      // distinct ones that it holds
  uint64_t hit_tokens = 0;  // as a shard drops blocks
  uint64_t lru_hit_tokens = 0;
};

struct Report {
  Trace trace;
  TraceTotals totals;
  uint64_t block_bytes = 0;
  std::vector<Row> rows;  // the least memory first

  double Share(uint64_t tokens) const {
    if (totals.prompt_tokens == 0) return 0;
    return static_cast<double>(tokens) / static_cast<double>(totals.prompt_tokens);
  }
  // The smallest row that serves nearly what a cache without a bound would.
  std::optional<Row> Enough() const {
    const double wanted = kNearlyAll * static_cast<double>(totals.hit_tokens);
    for (const Row& row : rows) {
      if (static_cast<double>(row.hit_tokens) >= wanted) return row;
    }
    return std::nullopt;
  }
};

constexpr char kFooter[] =
    "A line of the trace is {\"timestamp\": MS, \"hash_ids\": [...]}, one id for each "
    "--trace-block-tokens tokens,\n"
    "which stands for its block and all before it (published traces have it so), or\n"
    "{\"timestamp\": MS, \"token_ids\": [...]}. timestamp may be left out.\n"
    "It is a model of one pooled cache. `reprise size --router` asks a cluster that runs.";

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--trace", flags.trace, "File of requests, one JSON object a line")->required();
  app.add_option("--memory", flags.memory_bytes,
                 "Memory of all shards together, e.g. 64GiB; again for more; default: powers of "
                 "two up to what everything takes")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  app.add_option("--replication", flags.replication, "Copies of each block in that memory")
      ->check(CLI::Range(uint32_t{1}, limits::kReplicationMax))
      ->capture_default_str();
  app.add_option("--bytes-per-token", flags.bytes_per_token, "K and V of one token as stored")
      ->check(CLI::Range(uint64_t{1}, limits::kBlockBytesMax));
  app.add_option("--layers", flags.layers, "Or the model's shape: layers,");
  app.add_option("--kv-heads", flags.kv_heads, "  K/V heads of one layer,");
  app.add_option("--head-dim", flags.head_dim, "  numbers in one head's K, and");
  app.add_option("--dtype", flags.dtype, "  their type")->capture_default_str();
  app.add_option("--mla-latent", flags.mla_latent,
                 "  With MLA, instead of the heads: numbers stored for a token and layer");
  app.add_option("--codec", flags.codec, "  How blocks are encoded: none, fp8_e4m3, int8 or int4")
      ->capture_default_str();
  app.add_option("--block-tokens", flags.cut.block_tokens, "Tokens of a block that is stored")
      ->check(CLI::Range(uint32_t{1}, limits::kBlockTokensMax))
      ->capture_default_str();
  app.add_option("--trace-block-tokens", flags.cut.trace_block_tokens,
                 "Tokens that one of hash_ids stands for")
      ->check(CLI::Range(uint32_t{1}, limits::kBlockTokensMax))
      ->capture_default_str();
  CLI::Option* price =
      app.add_option("--price-per-million-tokens", flags.price, "What a million prompt tokens cost")
          ->check(CLI::NonNegativeNumber);
  app.add_option("--cached-price-per-million-tokens", flags.cached_price,
                 "The same where the cache served them; default: nothing")
      ->check(CLI::NonNegativeNumber)
      ->needs(price);
  app.add_option("-o,--output", flags.output, "text for people, json for programs")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.set_version_flag("--version", REPRISE_VERSION);
  app.footer(kFooter);
}

absl::StatusOr<CacheSpec> SpecOf(const Flags& flags) {
  const bool mla = flags.mla_latent > 0;
  if (flags.layers == 0 || (!mla && (flags.kv_heads == 0 || flags.head_dim == 0))) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SHAPE_MISSING",
                   "nothing says how large a token's K and V are: give --bytes-per-token, or "
                   "--layers, --kv-heads, --head-dim and --dtype, or --layers, --mla-latent and "
                   "--dtype");
  }
  if (mla && (flags.kv_heads > 0 || flags.head_dim > 0)) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SHAPE_TWICE",
                   "--mla-latent stands instead of --kv-heads and --head-dim: leave them out");
  }
  CacheSpec spec{.model = flags.trace.substr(0, limits::kSpecTextBytesMax),
                 .attention = mla ? AttentionKind::kMla : AttentionKind::kGqa,
                 .layers = flags.layers,
                 .kv_heads = flags.kv_heads,
                 .head_dim = mla ? flags.mla_latent : flags.head_dim,
                 .block_tokens = flags.cut.block_tokens,
                 .codec = flags.codec};
  REPRISE_ASSIGN_OR_RETURN(spec.dtype, DataTypeFromName(flags.dtype));
  REPRISE_RETURN_IF_ERROR(ValidateSpec(spec));
  return spec;
}

// Of a block of the trace, as it is stored.
absl::StatusOr<uint64_t> BlockBytes(const Flags& flags, uint32_t tokens) {
  if (flags.bytes_per_token > 0) {
    if (flags.layers + flags.kv_heads + flags.head_dim + flags.mla_latent == 0 &&
        flags.codec == "none") {
      return flags.bytes_per_token * tokens;
    }
    return Refusal(absl::StatusCode::kInvalidArgument, "SHAPE_TWICE",
                   "--bytes-per-token stands instead of the model's shape and --codec: leave one "
                   "out");
  }
  REPRISE_ASSIGN_OR_RETURN(const CacheSpec spec, SpecOf(flags));
  REPRISE_ASSIGN_OR_RETURN(const auto codec, kernels::CodecOf(spec));
  const uint64_t stored_bytes = kernels::StoredLayoutOf(spec, codec).block_bytes;
  return (stored_bytes * tokens + spec.block_tokens - 1) / spec.block_tokens;
}

std::vector<uint64_t> SizesFor(uint64_t all_bytes) {
  std::vector<uint64_t> sizes;
  uint64_t size = std::bit_ceil(all_bytes);
  for (; sizes.size() < kSizesShown && size > 0; size /= 2) sizes.push_back(size);
  return sizes;
}

absl::StatusOr<Report> Answer(const Flags& flags) {
  if (flags.cached_price > flags.price) {
    return Refusal(absl::StatusCode::kInvalidArgument, "PRICE",
                   "--cached-price-per-million-tokens is more than --price-per-million-tokens: "
                   "then a cache saves nothing");
  }
  Report report;
  // Before the trace is read, which may take a while.
  REPRISE_RETURN_IF_ERROR(BlockBytes(flags, flags.cut.block_tokens).status());
  REPRISE_ASSIGN_OR_RETURN(report.trace, ReadTrace(flags.trace, flags.cut));
  REPRISE_ASSIGN_OR_RETURN(report.block_bytes, BlockBytes(flags, report.trace.block_tokens));
  report.totals = TotalsOf(report.trace);
  constexpr uint64_t kBytesMax = uint64_t{1} << 60;  // an exbibyte
  if (report.totals.distinct_blocks > kBytesMax / flags.replication / report.block_bytes) {
    return Refusal(
        absl::StatusCode::kInvalidArgument, "TRACE_TOO_LARGE",
        "the trace's blocks take more than an exbibyte: are the bytes of a token right?");
  }
  std::vector<uint64_t> sizes = flags.memory_bytes;
  if (sizes.empty())
    sizes = SizesFor(flags.replication * report.totals.distinct_blocks * report.block_bytes);
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  const shard::ReuseCurve lru = LruCurve(report.trace, report.block_bytes);
  for (const uint64_t memory_bytes : sizes) {
    const uint64_t blocks = memory_bytes / flags.replication / report.block_bytes;
    report.rows.push_back(
        {.memory_bytes = memory_bytes,
         .blocks = blocks,
         .hit_tokens = ShardHitTokens(report.trace, blocks, shard::Eviction::kLearned),
         .lru_hit_tokens = lru.HitTokens(blocks * report.block_bytes)});
  }
  return report;
}

double Saved(const Flags& flags, double share) {
  return share * (flags.price - flags.cached_price);
}

std::string SizeText(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  constexpr size_t kUnitBits = 10;
  const size_t bits = bytes == 0 ? 0 : std::bit_width(bytes) - 1;
  const size_t unit = std::min(bits / kUnitBits, std::size(kUnits) - 1);
  const double value = std::ldexp(static_cast<double>(bytes), -static_cast<int>(kUnitBits * unit));
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

void PrintText(const Flags& flags, const Report& report) {
  const TraceTotals& totals = report.totals;
  std::printf(
      "%s: %zu requests, %llu prompt tokens; their %llu distinct blocks of %u tokens take "
      "%s. A cache without a bound would serve %.1f %% of the tokens.\n\n",
      report.trace.name.c_str(), report.trace.requests.size(),
      static_cast<unsigned long long>(totals.prompt_tokens),
      static_cast<unsigned long long>(totals.distinct_blocks), report.trace.block_tokens,
      SizeText(totals.distinct_blocks * report.block_bytes).c_str(),
      100 * report.Share(totals.hit_tokens));
  const bool priced = flags.price > 0;
  std::printf("%12s %10s %10s %s\n", "MEMORY", "SERVED", "WITH LRU",
              priced ? " SAVED PER MILLION PROMPT TOKENS" : "");
  for (const Row& row : report.rows) {
    const double share = report.Share(row.hit_tokens);
    std::printf("%12s %8.1f %% %8.1f %%", SizeText(row.memory_bytes).c_str(), 100 * share,
                100 * report.Share(row.lru_hit_tokens));
    if (priced) std::printf("  %.4g", Saved(flags, share));
    std::printf("\n");
  }
  std::printf(
      "\nServed: of the prompt tokens, as shards drop blocks. This is a model of one pooled cache "
      "in which nothing\nis in use or expires; %u copies of each block are in the memory "
      "(--replication).\n",
      flags.replication);
  const std::optional<Row> enough = report.Enough();
  if (totals.hit_tokens == 0) {
    std::printf("No prompt begins as one before it did: a cache would serve nothing of this.\n");
  } else if (!enough.has_value()) {
    std::printf("None of these sizes serves %.0f %% of what a cache without a bound would.\n",
                100 * kNearlyAll);
  } else {
    std::printf(
        "%s is the smallest of these sizes that serves at least %.0f %% of what a cache without a "
        "bound would.\n",
        SizeText(enough->memory_bytes).c_str(), 100 * kNearlyAll);
  }
}

void PrintJson(const Flags& flags, const Report& report) {
  Json rows = Json::array();
  for (const Row& row : report.rows) {
    rows.push_back({{"memory_bytes", row.memory_bytes},
                    {"distinct_blocks", row.blocks},
                    {"hit_tokens", row.hit_tokens},
                    {"served", report.Share(row.hit_tokens)},
                    {"lru_hit_tokens", row.lru_hit_tokens},
                    {"lru_served", report.Share(row.lru_hit_tokens)}});
    if (flags.price > 0)
      rows.back()["saved_per_million_tokens"] = Saved(flags, report.Share(row.hit_tokens));
  }
  const TraceTotals& totals = report.totals;
  const std::optional<Row> enough = report.Enough();
  const Json json = {
      {"trace", report.trace.name},
      {"requests", report.trace.requests.size()},
      {"prompt_tokens", totals.prompt_tokens},
      {"block_tokens", report.trace.block_tokens},
      {"block_bytes", report.block_bytes},
      {"blocks", totals.blocks},
      {"distinct_blocks", totals.distinct_blocks},
      {"distinct_bytes", totals.distinct_blocks * report.block_bytes},
      {"replication", flags.replication},
      {"model", "one pooled cache"},
      {"unbounded",
       {{"hit_tokens", totals.hit_tokens}, {"served", report.Share(totals.hit_tokens)}}},
      {"sizes", rows},
      {"enough_memory_bytes",
       enough.has_value() && totals.hit_tokens > 0 ? Json(enough->memory_bytes) : Json(nullptr)}};
  constexpr int kOneLine = -1;
  std::printf(
      "%s\n",
      json.dump(kOneLine, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace).c_str());
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"What so much memory would serve of a trace of requests.", "reprise-size"};
  AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const absl::StatusOr<Report> report = Answer(flags);
  if (!report.ok()) {
    std::fprintf(stderr, "reprise-size: %s\n", std::string(report.status().message()).c_str());
    if (absl::IsNotFound(report.status())) return kExitNotFound;
    return absl::IsInvalidArgument(report.status()) ? kExitUsage : kExitFailed;
  }
  flags.output == "json" ? PrintJson(flags, *report) : PrintText(flags, *report);
  return 0;
}

}  // namespace
}  // namespace reprise::sizing

int main(int argc, char** argv) {
  return reprise::sizing::Main(argc, argv);
}
