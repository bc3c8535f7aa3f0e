// reprise-bench-stream: the stream lane beside generated code and beside a bare socket, interleaved
// in one run.

#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "tests/bench/stream/bench_end.h"

namespace reprise::bench {
namespace {

constexpr uint64_t kSlotsBytes = 32 << 20;

struct Flags {
  int repetitions = 5;
  uint64_t call_bytes = 8 << 20;     // moved by one call
  uint64_t caller_bytes = 96 << 20;  // moved by each caller in one repetition
  bool json = false;
};

struct Row {
  const char* verb;
  uint64_t block_bytes;
  int callers;
  std::vector<double> gb_per_s[3];  // by end, one per repetition
};

double LoadAverage() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  return load;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Largest distance from the median, as a part of it.
double Spread(const std::vector<double>& values) {
  const double median = Median(values);
  double spread = 0;
  for (const double value : values) spread = std::max(spread, std::abs(value - median) / median);
  return spread;
}

// Buffers that were touched, one per caller.
std::vector<uint8_t>& Memory(int caller) {
  static std::vector<std::vector<uint8_t>> memory(16, std::vector<uint8_t>(kSlotsBytes, 1));
  return memory.at(static_cast<size_t>(caller));
}

double Measure(std::vector<std::unique_ptr<Caller>>& callers, const Row& row, const Flags& flags) {
  const Shape shape{
      .block_bytes = row.block_bytes,
      .blocks = static_cast<uint32_t>(std::max<uint64_t>(1, flags.call_bytes / row.block_bytes))};
  const uint64_t calls =
      std::max<uint64_t>(1, flags.caller_bytes / (uint64_t{shape.blocks} * shape.block_bytes));
  const auto work = [&](int caller) {
    for (uint64_t i = 0; i < calls; ++i) {
      if (row.verb[0] == 'G') {
        callers[caller]->Get(shape, Memory(caller));
      } else {
        callers[caller]->Put(shape, Memory(caller));
      }
    }
  };
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (int caller = 1; caller < row.callers; ++caller) threads.emplace_back(work, caller);
  work(0);
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return static_cast<double>(calls * shape.blocks * shape.block_bytes) * row.callers / seconds /
         1e9;
}

void Print(const Row& row) {
  const double ours = Median(row.gb_per_s[0]);
  const double protobuf = Median(row.gb_per_s[1]);
  const double socket = Median(row.gb_per_s[2]);
  std::printf("%-4s %5llu KiB  c%d %8.2f %8.2f %8.2f   %5.2fx %5.2fx   %3.0f%% %3.0f%% %3.0f%%\n",
              row.verb, static_cast<unsigned long long>(row.block_bytes >> 10), row.callers, ours,
              protobuf, socket, ours / protobuf, ours / socket, 100 * Spread(row.gb_per_s[0]),
              100 * Spread(row.gb_per_s[1]), 100 * Spread(row.gb_per_s[2]));
  std::fflush(stdout);
}

nlohmann::json ToJson(const Row& row) {
  nlohmann::json json = {
      {"verb", row.verb}, {"block_bytes", row.block_bytes}, {"callers", row.callers}};
  const char* const names[] = {"stream_lane", "protobuf_bytes", "raw_socket"};
  for (int end = 0; end < 3; ++end) {
    json[names[end]] = {{"gb_per_s", Median(row.gb_per_s[end])},
                        {"spread", Spread(row.gb_per_s[end])}};
  }
  json["ratio_to_protobuf"] = Median(row.gb_per_s[0]) / Median(row.gb_per_s[1]);
  json["ratio_to_socket"] = Median(row.gb_per_s[0]) / Median(row.gb_per_s[2]);
  return json;
}

void Run(const Flags& flags) {
  std::vector<uint8_t> stored(kSlotsBytes, 2);
  std::vector<uint8_t> reserved(kSlotsBytes, 3);
  const Slots slots{.stored = stored, .reserved = reserved};
  std::unique_ptr<End> ends[] = {StreamLaneEnd(slots), ProtobufBytesEnd(slots), SocketEnd(slots)};
  std::vector<std::unique_ptr<Caller>> callers[3];
  for (int end = 0; end < 3; ++end) {
    for (int caller = 0; caller < 4; ++caller) callers[end].push_back(ends[end]->Connect());
  }
  nlohmann::json report = {{"load_average", LoadAverage()}, {"rows", nlohmann::json::array()}};
  if (!flags.json) {
    std::printf("GB/s, median of %d repetitions, %llu MiB a call, load average %.1f\n",
                flags.repetitions, static_cast<unsigned long long>(flags.call_bytes >> 20),
                LoadAverage());
    std::printf("%19s %8s %8s %8s   %6s %6s   spread of each\n", "", "ours", "protobuf", "socket",
                "/proto", "/sock");
  }
  for (const char* verb : {"GET", "PUT"}) {
    for (const uint64_t block_bytes : {uint64_t{64} << 10, uint64_t{1} << 20, uint64_t{2} << 20}) {
      for (const int count : {1, 4}) {
        Row row{.verb = verb, .block_bytes = block_bytes, .callers = count};
        for (int repetition = -1; repetition < flags.repetitions; ++repetition) {
          for (int end = 0; end < 3; ++end) {
            const double rate = Measure(callers[end], row, flags);
            if (repetition >= 0) row.gb_per_s[end].push_back(rate);
          }
        }
        if (!flags.json) Print(row);
        report["rows"].push_back(ToJson(row));
      }
    }
  }
  if (flags.json) std::printf("%s\n", report.dump().c_str());
  for (auto& of_end : callers) of_end.clear();
}

}  // namespace
}  // namespace reprise::bench

int main(int argc, char** argv) {
  // As reprise-shard does.
  mallopt(M_MMAP_THRESHOLD, reprise::limits::kMallocMmapThresholdBytes);
  mallopt(M_TRIM_THRESHOLD, reprise::limits::kMallocTrimThresholdBytes);
  mallopt(M_TOP_PAD, reprise::limits::kMallocTopPadBytes);
  reprise::bench::Flags flags;
  CLI::App app{"The stream lane beside generated code and a bare socket, in one run on loopback."};
  app.add_option("--repetitions", flags.repetitions)
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--call-bytes", flags.call_bytes, "Moved by one call")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{1}, reprise::bench::kSlotsBytes));
  app.add_option("--caller-bytes", flags.caller_bytes, "Moved by each caller in one repetition")
      ->transform(CLI::AsSizeValue(false));
  app.add_flag("--json", flags.json);
  CLI11_PARSE(app, argc, argv);
  reprise::bench::Run(flags);
  return 0;
}
