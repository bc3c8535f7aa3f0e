#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/checksum/checksum_cuda.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/quantize_cuda.h"
#include "kernels/runtime/gpu_status.h"
#include "tests/gpu/gpu_bench.h"
#include "tests/gpu/must.h"

namespace reprise::gpu_bench {
namespace {

using kernels::BlockPart;
using kernels::BlockRun;
using kernels::CopyAsync;
using kernels::DeviceBuffer;
using kernels::GpuPlan;
using kernels::GpuStream;

constexpr char kCopy[] = "cudaMemcpy device to device, 1 GiB";
constexpr char kToDevice[] = "pinned host to device, one copy of 1 GiB";
constexpr char kToHost[] = "device to pinned host, one copy of 1 GiB";

using RunFunction = absl::Status (*)(const GpuPlan&, const BlockRun&, GpuStream);

double Microseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

double MedianMicroseconds(const std::function<void()>& work, const std::function<void()>& after) {
  std::vector<double> times;
  for (int i = 0; i < kIterations; ++i) {
    times.push_back(Microseconds(work));
    after();
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// H1: whole blocks, and one layer (two fragments of 32 KiB) of many blocks, both ways.
void RunCases(Bench& bench, Table& table, bool nhd) {
  const GpuPlan plan = Must(GpuPlan::Create(0, bench.Plan(nhd)));
  const std::string order = nhd ? ", NHD" : ", HND";
  const BlockRun all = bench.RunOver(bench.blocks.data(), kBlockBytes, kBlocks);
  const std::pair<const char*, RunFunction> kWays[] = {{"gather", kernels::GatherRun},
                                                       {"scatter", kernels::ScatterRun}};
  for (const auto& [name, way] : kWays) {
    const Timing whole =
        Time(bench.stream.handle(), [&](int) { Must(way(plan, all, bench.stream.handle())); });
    table.Case({.goal = "H1",
                .name = std::string(name) + " 512 blocks of 2 MiB" + order,
                .gb_per_s = Rate(2 * kRunBytes, whole),
                .spread = whole.spread,
                .control = kCopy,
                .wanted = 0.85});
    const Timing layer = Time(bench.stream.handle(), [&](int iteration) {
      BlockRun one = all;
      one.part =
          BlockPart{.first_layer = static_cast<uint32_t>(iteration * 7) % kLayers, .layers = 1};
      Must(way(plan, one, bench.stream.handle()));
    });
    table.Case({.goal = "H1",
                .name = std::string(name) + " 512 blocks, one layer (32 KiB fragments)" + order,
                .gb_per_s = Rate(2 * kBlocks * kLayerBytes, layer),
                .spread = layer.spread,
                .control = kCopy,
                .wanted = 0.7});
  }
}

// H5: what a host pays before the first byte of a cached prompt moves.
void LaunchCases(Bench& bench, Table& table) {
  const GpuPlan plan = Must(GpuPlan::Create(0, bench.Plan(true)));
  const BlockRun prompt = bench.RunOver(bench.blocks.data(), kBlockBytes, kPromptBlocks);
  const auto drain = [&bench] { Must(bench.stream.Synchronize()); };
  const double launch = MedianMicroseconds(
      [&] { Must(kernels::ScatterRun(plan, prompt, bench.stream.handle())); }, drain);
  const double copies = MedianMicroseconds(
      [&] {
        for (uint32_t i = 0; i < kPromptBlocks; ++i) {
          Must(CopyAsync(bench.engine.data() + i * kBlockBytes,
                         bench.blocks.data() + i * kBlockBytes, kBlockBytes,
                         bench.stream.handle()));
        }
      },
      drain);
  table.Case({.goal = "H5",
              .name = "host microseconds of one launch for 128 blocks",
              .control = "20 microseconds",
              .ratio = launch / 20,
              .wanted = 1,
              .at_most = true});
  table.Case({.name = "host time of one launch for 128 blocks",
              .control = "128 single copies",
              .ratio = launch / copies});
}

}  // namespace

void CopyCases(Bench& bench, Table& table) {
  const Timing copy = Time(bench.stream.handle(), [&](int) {
    Must(CopyAsync(bench.blocks.data(), bench.engine.data(), kRunBytes, bench.stream.handle()));
  });
  table.Control(kCopy, Rate(2 * kRunBytes, copy), copy.spread);
  RunCases(bench, table, false);
  RunCases(bench, table, true);
  LaunchCases(bench, table);
}

void HostCases(Bench& bench, Table& table) {
  const GpuStream stream = bench.stream.handle();
  const auto copy = [&](bool to_device, uint64_t piece_bytes, uint64_t bytes) {
    return Time(stream, [&, to_device, piece_bytes, bytes](int) {
      for (uint64_t at = 0; at < bytes; at += piece_bytes) {
        uint8_t* device = bench.blocks.data() + at;
        uint8_t* host = bench.pinned.data() + at;
        Must(to_device ? CopyAsync(device, host, piece_bytes, stream)
                       : CopyAsync(host, device, piece_bytes, stream));
      }
    });
  };
  constexpr uint64_t kFragmentsBytes = 64 << 20;
  for (const bool to_device : {true, false}) {
    const std::string direction = to_device ? "to device" : "to host";
    const std::string control = to_device ? kToDevice : kToHost;
    const Timing large = copy(to_device, kRunBytes, kRunBytes);
    table.Control(control, Rate(kRunBytes, large), large.spread);
    const Timing blocks = copy(to_device, kBlockBytes, kRunBytes);
    table.Case({.goal = "H2",
                .name = "pinned " + direction + ", 512 copies of 2 MiB",
                .gb_per_s = Rate(kRunBytes, blocks),
                .spread = blocks.spread,
                .control = control,
                .wanted = 0.9});
    const Timing loop = copy(to_device, kFragmentBytes, kFragmentsBytes);
    const std::string loop_name = "pinned " + direction + ", loop of 32 KiB copies";
    table.Control(loop_name, Rate(kFragmentsBytes, loop), loop.spread);
    // One layer of 512 blocks is 1024 fragments of 32 KiB: gathered into pinned memory, or
    // scattered from there.
    const GpuPlan plan = Must(GpuPlan::Create(0, bench.Plan(false)));
    BlockRun run = bench.RunOver(bench.pinned.data(), kBlockBytes, kBlocks);
    const Timing kernel = Time(stream, [&](int iteration) {
      run.part =
          BlockPart{.first_layer = static_cast<uint32_t>(iteration * 7) % kLayers, .layers = 1};
      Must(to_device ? ScatterRun(plan, run, stream) : GatherRun(plan, run, stream));
    });
    const double rate = Rate(kBlocks * kLayerBytes, kernel);
    const std::string name = "pinned " + direction + ", 32 KiB fragments by kernel";
    table.Case({.goal = "H3",
                .name = name,
                .gb_per_s = rate,
                .spread = kernel.spread,
                .control = control,
                .wanted = 0.7});
    table.Case({.goal = "H3",
                .name = name,
                .gb_per_s = rate,
                .spread = kernel.spread,
                .control = loop_name,
                .wanted = 3});
  }
  // H4: both ways at once, on two streams and other halves of memory.
  const Timing both = Time(stream, [&](int) {
    kernels::Event start = Must(kernels::Event::Create());
    kernels::Event end = Must(kernels::Event::Create());
    const uint64_t half = kRunBytes / 2;
    Must(start.Record(stream));
    Must(bench.other_stream.WaitFor(start));
    Must(CopyAsync(bench.blocks.data(), bench.pinned.data(), half, stream));
    Must(CopyAsync(bench.pinned.data() + half, bench.blocks.data() + half, half,
                   bench.other_stream.handle()));
    Must(end.Record(bench.other_stream.handle()));
    Must(bench.stream.WaitFor(end));
  });
  table.Case({.goal = "H4",
              .name = "pinned, both ways at once",
              .gb_per_s = Rate(kRunBytes, both),
              .spread = both.spread,
              .control = kToDevice,
              .wanted = 1.5});
}

void QuantizeCases(Bench& bench, Table& table) {
  const GpuPlan plan = Must(GpuPlan::Create(0, bench.Plan(true)));
  for (const char* codec : {"fp8_e4m3", "int8", "int4"}) {
    kernels::QuantShape shape;
    shape.layers = kLayers;
    shape.planes_per_layer = 2;
    shape.heads = kHeads;
    shape.tokens = kTokens;
    shape.channels = kRowBytes / 2;
    shape = Must(kernels::WithCodec(shape, codec));
    const uint64_t encoded_bytes = kernels::EncodedBlockBytes(shape);
    const BlockRun run = bench.RunOver(bench.blocks.data(), encoded_bytes, kBlocks);
    const bool int4 = shape.codec == kernels::Codec::kInt4;
    const std::string goal = int4 ? "H8" : "H7";
    const double wanted = int4 ? 0.3 : 0.5;
    const uint64_t bytes = kBlocks * (kBlockBytes + encoded_bytes);
    const Timing encode = Time(bench.stream.handle(), [&](int) {
      Must(EncodeRun(plan, shape, run, bench.stream.handle()));
    });
    table.Case({.goal = goal,
                .name = std::string("gather and encode, ") + codec,
                .gb_per_s = Rate(bytes, encode),
                .spread = encode.spread,
                .control = kCopy,
                .wanted = wanted});
    const Timing decode = Time(bench.stream.handle(), [&](int) {
      Must(DecodeRun(plan, shape, run, bench.stream.handle()));
    });
    table.Case({.goal = goal,
                .name = std::string("decode and scatter, ") + codec,
                .gb_per_s = Rate(bytes, decode),
                .spread = decode.spread,
                .control = kCopy,
                .wanted = wanted});
  }
}

void ChecksumCases(Bench& bench, Table& table) {
  for (const uint32_t blocks : {1u, kPromptBlocks, kBlocks}) {
    const BlockRun run = bench.RunOver(bench.blocks.data(), kBlockBytes, blocks);
    const DeviceBuffer scratch = Must(
        DeviceBuffer::Create(0, kernels::ChecksumScratchBytes(blocks, kBlockBytes, kLayerBytes)));
    const DeviceBuffer digests =
        Must(DeviceBuffer::Create(0, blocks * kernels::kChecksumDigestBytes));
    kernels::ChecksumBatch batch;
    batch.block_table = run.block_table;
    batch.block_count = blocks;
    batch.block_bytes = kBlockBytes;
    batch.section_bytes = kLayerBytes;
    batch.aligned = true;
    batch.scratch = scratch.data();
    batch.digests = digests.data();
    const Timing timing = Time(bench.stream.handle(), [&](int) {
      Must(kernels::GpuStatus(ChecksumBlocksOnGpu(batch, bench.stream.handle()), "checksum"));
    });
    table.Case({.name = "checksum of " + std::to_string(blocks) + " blocks of 2 MiB (bytes read)",
                .gb_per_s = Rate(blocks * kBlockBytes, timing),
                .spread = timing.spread,
                .control = kCopy});
  }
}

}  // namespace reprise::gpu_bench
