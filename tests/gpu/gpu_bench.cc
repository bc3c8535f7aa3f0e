// The GPU benchmark: kernels and copies beside their controls in the same run, timed by CUDA
// events, random bytes.
//
//   reprise-gpu-bench [--json FILE] [--skip-exit=N]
#include "tests/gpu/gpu_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "kernels/runtime/device.h"
#include "tests/gpu/must.h"

namespace reprise::gpu_bench {

using kernels::BlockRun;
using kernels::CopyAsync;
using kernels::DeviceBuffer;
using kernels::Event;
using kernels::GpuStream;
using kernels::PagedPlan;
using kernels::PinnedBuffer;
using kernels::Stream;

void Table::Control(const std::string& name, double gb_per_s, double spread) {
  rows_.push_back({.name = name, .gb_per_s = gb_per_s, .spread = spread});
}

void Table::Case(const Row& row) {
  rows_.push_back(row);
  if (rows_.back().ratio == 0) rows_.back().ratio = row.gb_per_s / RateOf(row.control);
}

double Table::RateOf(const std::string& name) const {
  for (const Row& row : rows_) {
    if (row.name == name) return row.gb_per_s;
  }
  return 0;
}

Timing Time(GpuStream stream, const std::function<void(int)>& work) {
  Event start = Must(Event::Create());
  Event end = Must(Event::Create());
  for (int i = 0; i < kWarmUps; ++i) work(i);
  std::vector<double> milliseconds;
  for (int i = 0; i < kIterations; ++i) {
    Must(start.Record(stream));
    work(kWarmUps + i);
    Must(end.Record(stream));
    Must(end.Synchronize());
    milliseconds.push_back(Must(end.MillisecondsSince(start)));
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const double median = milliseconds[milliseconds.size() / 2];
  return {median, (milliseconds.back() - milliseconds.front()) / median};
}

double Rate(uint64_t bytes, const Timing& timing) {
  return static_cast<double>(bytes) / timing.median_ms / 1e6;
}

Bench Bench::Create() {
  Bench bench{Must(Stream::Create(0)),
              Must(Stream::Create(0)),
              Must(DeviceBuffer::Create(0, kRunBytes)),
              Must(DeviceBuffer::Create(0, kRunBytes)),
              Must(PinnedBuffer::Create(kRunBytes)),
              {}};
  // bf16 numbers as K/V caches have them: zeros would flatter, and NaN would make the codecs' work
  // unlike a model's.
  std::mt19937_64 random(83);
  std::normal_distribution<float> normal(0, 1);
  std::vector<uint16_t> sample(1 << 20);
  for (uint16_t& element : sample) {
    const float value = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    element = static_cast<uint16_t>(bits >> 16);
  }
  auto* elements = reinterpret_cast<uint16_t*>(bench.pinned.data());
  for (uint64_t at = 0; at < kRunBytes / 2; at += sample.size()) {
    std::rotate_copy(sample.begin(), sample.begin() + random() % sample.size(), sample.end(),
                     elements + at);
  }
  Must(CopyAsync(bench.engine.data(), bench.pinned.data(), kRunBytes, bench.stream.handle()));
  Must(CopyAsync(bench.blocks.data(), bench.pinned.data(), kRunBytes, bench.stream.handle()));
  Must(bench.stream.Synchronize());
  return bench;
}

PagedPlan Bench::Plan(bool nhd) const {
  PagedPlan plan;
  plan.planes_per_layer = 2;
  plan.heads = kHeads;
  plan.page_tokens = kTokens;
  plan.block_tokens = kTokens;
  plan.row_data_bytes = kRowBytes;
  plan.row_bytes = kRowBytes;
  plan.block_bytes = kBlockBytes;
  for (uint32_t plane = 0; plane < 2 * kLayers; ++plane) {
    plan.planes.push_back({.base = engine.data() + uint64_t{plane} * kBlocks * kFragmentBytes,
                           .page_stride_bytes = kFragmentBytes,
                           .head_stride_bytes = nhd ? kRowBytes : kTokens * kRowBytes,
                           .token_stride_bytes = nhd ? kHeads * kRowBytes : kRowBytes});
  }
  return plan;
}

BlockRun Bench::RunOver(uint8_t* base, uint64_t stride_bytes, uint32_t count) {
  std::vector<int64_t> pages(kBlocks);
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(89));
  pages.resize(count);
  std::vector<uint8_t*> table;
  for (uint32_t i = 0; i < count; ++i) table.push_back(base + i * stride_bytes);
  const auto upload = [this](const void* from, uint64_t bytes) {
    tables.push_back(Must(DeviceBuffer::Create(0, bytes)));
    Must(CopyAsync(tables.back().data(), from, bytes, stream.handle()));
    Must(stream.Synchronize());
    return tables.back().data();
  };
  BlockRun run;
  run.page_table = reinterpret_cast<const int64_t*>(upload(pages.data(), count * sizeof(int64_t)));
  run.block_table =
      reinterpret_cast<uint8_t* const*>(upload(table.data(), count * sizeof(uint8_t*)));
  run.block_count = count;
  return run;
}

namespace {

std::string Number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

void Print(const Table& table) {
  std::printf(
      "\n| goal | case | GB/s | spread | ratio | wanted | control "
      "|\n|---|---|---:|---:|---:|---:|---|\n");
  for (const Row& row : table.rows()) {
    const std::string wanted =
        row.wanted == 0 ? "" : (row.at_most ? "<= " : ">= ") + Number("%.2f", row.wanted);
    std::printf("| %s | %s | %s | %.0f %% | %s | %s | %s |\n", row.goal.c_str(), row.name.c_str(),
                row.gb_per_s == 0 ? "" : Number("%.1f", row.gb_per_s).c_str(), 100 * row.spread,
                row.control.empty() ? "" : Number("%.2f", row.ratio).c_str(), wanted.c_str(),
                row.control.c_str());
  }
}

nlohmann::json Json(const Table& table, const kernels::DeviceInfo& device) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : table.rows()) {
    rows.push_back({{"goal", row.goal},
                    {"name", row.name},
                    {"gb_per_s", row.gb_per_s},
                    {"spread", row.spread},
                    {"control", row.control},
                    {"ratio", row.ratio},
                    {"wanted", row.wanted},
                    {"met", row.wanted == 0 || (row.at_most ? row.ratio <= row.wanted
                                                            : row.ratio >= row.wanted)}});
  }
  return {{"device", device.name},
          {"compute_capability",
           std::to_string(device.compute_major) + "." + std::to_string(device.compute_minor)},
          {"iterations", kIterations},
          {"rows", rows}};
}

int Main(int argc, char** argv) {
  std::string json_path;
  int skip_exit = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json" && i + 1 < argc) json_path = argv[++i];
    if (argument == "--ipc-child" && i + 1 < argc) return IpcChild(argv[++i]);
    if (argument.rfind("--skip-exit=", 0) == 0) skip_exit = std::atoi(argument.c_str() + 12);
  }
  const std::string reason = kernels::WhyNoDevice();
  if (!reason.empty()) {
    std::printf("SKIPPED: no GPU to measure (%s)\n", reason.c_str());
    return skip_exit;
  }
  const kernels::DeviceInfo device = Must(kernels::DescribeDevice(0));
  std::printf("%s, %d iterations after %d of warm-up, medians, GB/s of bytes read plus written\n",
              device.name.c_str(), kIterations, kWarmUps);
  Bench bench = Bench::Create();
  Table table;
  CopyCases(bench, table);
  HostCases(bench, table);
  QuantizeCases(bench, table);
  ChecksumCases(bench, table);
  IpcCases(bench, table);
  Print(table);
  if (!json_path.empty()) std::ofstream(json_path) << Json(table, device).dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace reprise::gpu_bench

int main(int argc, char** argv) {
  return reprise::gpu_bench::Main(argc, argv);
}
