// The CPU kernels beside memcpy of the same bytes, repetitions interleaved; after Google
// Benchmark's own lines comes a table of each case's median rate, its spread, and its ratio to its
// control.
//
//   reprise-bench-kernels [Google Benchmark's flags, e.g. --benchmark_out=FILE]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy.h"
#include "kernels/checksum/checksum.h"
#include "kernels/checksum/checksum_isa.h"
#include "kernels/quantize/quant_math.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_isa.h"

namespace reprise::kernels {
namespace {

constexpr uint32_t kLayers = 32;  // Llama-3-8B: a block of 16 tokens is 2 MiB
constexpr uint32_t kHeads = 8;
constexpr uint32_t kTokens = 16;
constexpr uint32_t kRowBytes = 256;
constexpr uint64_t kBlockBytes = uint64_t{kLayers} * 2 * kHeads * kTokens * kRowBytes;
constexpr uint64_t kLayerBytes = kBlockBytes / kLayers;
constexpr uint32_t kPages = 128;
constexpr int kRepetitions = 7;
constexpr double kSecondsPerRepetition = 0.05;

std::vector<uint8_t> RandomBytes(uint64_t bytes) {
  std::vector<uint64_t> words(bytes / 8);
  std::mt19937_64 random(73);
  std::generate(words.begin(), words.end(), std::ref(random));
  const auto* data = reinterpret_cast<const uint8_t*>(words.data());
  return {data, data + bytes};
}

// An engine of Llama-3-8B's shape with 128 pages (256 MiB), and blocks for all of them.
struct Engine {
  explicit Engine(bool nhd)
      : memory(RandomBytes(kPages * kBlockBytes)), blocks(kPages * kBlockBytes, 1) {
    plan.planes_per_layer = 2;
    plan.heads = kHeads;
    plan.page_tokens = kTokens;
    plan.block_tokens = kTokens;
    plan.row_data_bytes = kRowBytes;
    plan.row_bytes = kRowBytes;
    plan.block_bytes = kBlockBytes;
    const int64_t page = int64_t{kHeads} * kTokens * kRowBytes;
    for (uint32_t plane = 0; plane < 2 * kLayers; ++plane) {
      plan.planes.push_back({.base = memory.data() + uint64_t{plane} * kPages * page,
                             .page_stride_bytes = page,
                             .head_stride_bytes = nhd ? kRowBytes : kTokens * kRowBytes,
                             .token_stride_bytes = nhd ? kHeads * kRowBytes : kRowBytes});
    }
    order.resize(kPages);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(79));
  }
  std::vector<uint8_t> memory;
  std::vector<uint8_t> blocks;
  PagedPlan plan;
  std::vector<int64_t> order;
};

struct Case {
  std::string name;
  std::string control;  // another case's name, or "" for a control itself
  uint64_t bytes;       // moved or read by one run
  std::function<void()> run;
};

// A block of numbers spread as those of K/V caches are.
std::vector<uint8_t> BlockOf(ElementType element) {
  std::vector<uint8_t> block(kBlockBytes);
  std::mt19937_64 random(89);
  std::normal_distribution<float> normal;
  for (uint64_t at = 0; at < kBlockBytes; at += 2) {
    const float x = normal(random);
    const uint16_t bits =
        element == ElementType::kF16 ? quant::FloatToF16(x) : quant::FloatToBf16(x);
    std::memcpy(block.data() + at, &bits, sizeof(bits));
  }
  return block;
}

// Encoding and decoding, by every instruction set and for every codec; the rate is that of the
// plain bytes.
void AddCodecs(std::vector<Case>& cases) {
  struct Blocks {
    std::vector<uint8_t> plain, encoded, decoded;
  };
  for (ElementType element : {ElementType::kBf16, ElementType::kF16}) {
    for (const char* codec : {"fp8_e4m3", "int8", "int4", "int4_g64"}) {
      QuantShape shape;
      shape.element = element;
      shape.layers = kLayers;
      shape.planes_per_layer = 2;
      shape.heads = kHeads;
      shape.tokens = kTokens;
      shape.channels = kRowBytes / 2;
      shape = WithCodec(shape, codec).value();
      const auto blocks = std::make_shared<Blocks>();
      blocks->plain = BlockOf(element);
      blocks->encoded.resize(EncodedBlockBytes(shape));
      blocks->decoded.resize(kBlockBytes);
      EncodeBlock(shape, blocks->plain.data(), blocks->encoded.data());
      for (const QuantizeIsa* const* isa = UsableQuantizeIsas(); *isa != nullptr; ++isa) {
        const std::string what = std::string(" 2 MiB, ") + codec +
                                 (element == ElementType::kF16 ? " of f16, " : " of bf16, ") +
                                 (*isa)->name;
        cases.push_back(
            {"encode" + what, "memcpy 2 MiB, cached", kBlockBytes,
             [=] { EncodeBlockWith(**isa, shape, blocks->plain.data(), blocks->encoded.data()); }});
        cases.push_back({"decode" + what, "memcpy 2 MiB, cached", kBlockBytes, [=] {
                           DecodeBlockWith(**isa, shape, blocks->encoded.data(),
                                           blocks->decoded.data());
                         }});
      }
    }
  }
}

// All cases over memory that lives as long as the program.
std::vector<Case> Cases() {
  static std::vector<uint8_t> block = RandomBytes(kBlockBytes);
  static std::vector<uint8_t> copy(kBlockBytes, 1);
  static Engine nhd(true);
  static Engine hnd(false);
  static uint8_t digest[kChecksumDigestBytes];
  const uint64_t run_bytes = kPages * kBlockBytes;
  std::vector<Case> cases = {
      {"memcpy 2 MiB, cached", "", kBlockBytes,
       [] { std::memcpy(copy.data(), block.data(), kBlockBytes); }},
      {"checksum 2 MiB, cached", "memcpy 2 MiB, cached", kBlockBytes,
       [] { ChecksumBlock(block.data(), kBlockBytes, kLayerBytes, digest); }},
  };
  for (const ChecksumIsa* const* isa = UsableChecksumIsas(); *isa != nullptr; ++isa) {
    cases.push_back({std::string("checksum 2 MiB, cached, ") + (*isa)->name, "memcpy 2 MiB, cached",
                     kBlockBytes,
                     [isa] { (*isa)->block(block.data(), kBlockBytes, kLayerBytes, digest); }});
  }
  cases.push_back({"memcpy 256 MiB", "", run_bytes, [] {
                     std::memcpy(nhd.blocks.data(), nhd.memory.data(), kPages * kBlockBytes);
                   }});
  cases.push_back({"checksum 256 MiB", "memcpy 256 MiB", run_bytes, [] {
                     for (uint32_t i = 0; i < kPages; ++i) {
                       ChecksumBlock(nhd.memory.data() + i * kBlockBytes, kBlockBytes, kLayerBytes,
                                     digest);
                     }
                   }});
  for (Engine* engine : {&hnd, &nhd}) {
    const std::string order = engine == &hnd ? "HND" : "NHD";
    cases.push_back({"gather 128 blocks, " + order, "memcpy 256 MiB", run_bytes, [engine] {
                       for (uint32_t i = 0; i < kPages; ++i) {
                         GatherBlock(engine->plan, {&engine->order[i], 1},
                                     engine->blocks.data() + i * kBlockBytes);
                       }
                     }});
    cases.push_back({"scatter 128 blocks, " + order, "memcpy 256 MiB", run_bytes, [engine] {
                       for (uint32_t i = 0; i < kPages; ++i) {
                         ScatterBlock(engine->plan, {&engine->order[i], 1},
                                      engine->blocks.data() + i * kBlockBytes);
                       }
                     }});
  }
  AddCodecs(cases);
  return cases;
}

// Prints Google Benchmark's lines as they come and the table of ratios at the end.
class RatioReporter : public benchmark::ConsoleReporter {
 public:
  explicit RatioReporter(const std::vector<Case>& cases) : cases_(cases) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (const Run& run : runs) {
      const auto rate = run.counters.find("bytes_per_second");
      if (run.run_type != Run::RT_Iteration || rate == run.counters.end()) continue;
      rates_[run.run_name.function_name].push_back(rate->second.value / 1e9);
    }
  }

  void Finalize() override {
    GetOutputStream() << "\n";
    Row("case", "GB/s", "spread", "ratio to", "control");
    Row("---", "---:", "---:", "---:", "---");
    for (const Case& test : cases_) {
      if (rates_.count(test.name) == 0) continue;
      std::vector<double>& rates = rates_[test.name];
      const double median = Median(rates);
      const double spread = (rates.back() - rates.front()) / median;
      const bool compared = rates_.count(test.control) != 0;
      Row(test.name, Text("%.2f", median), Text("%.0f %%", 100 * spread),
          compared ? Text("%.2f", median / Median(rates_[test.control])) : "", test.control);
    }
  }

 private:
  static std::string Text(const char* format, double value) {
    char text[64];
    std::snprintf(text, sizeof(text), format, value);
    return text;
  }
  static double Median(std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  void Row(const std::string& name, const std::string& rate, const std::string& spread,
           const std::string& ratio, const std::string& control) {
    char line[256];
    std::snprintf(line, sizeof(line), "| %-42s | %8s | %7s | %8s | %-20s |\n", name.c_str(),
                  rate.c_str(), spread.c_str(), ratio.c_str(), control.c_str());
    GetOutputStream() << line;
  }

  const std::vector<Case>& cases_;
  std::map<std::string, std::vector<double>> rates_;
};

void RunCase(benchmark::State& state, const Case& test) {
  for (auto _ : state) {
    test.run();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * test.bytes));
}

int Main(int argc, char** argv) {
  // Before the command line, which may say otherwise.
  std::vector<char*> arguments = {argv[0]};
  static char interleave[] = "--benchmark_enable_random_interleaving=true";
  arguments.push_back(interleave);
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  const std::vector<Case> cases = Cases();
  for (const Case& test : cases) {
    benchmark::RegisterBenchmark(test.name.c_str(), RunCase, test)
        ->Repetitions(kRepetitions)
        ->MinTime(kSecondsPerRepetition)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  RatioReporter reporter(cases);
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return 0;
}

}  // namespace
}  // namespace reprise::kernels

int main(int argc, char** argv) {
  return reprise::kernels::Main(argc, argv);
}
