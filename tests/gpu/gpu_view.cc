// The view lane on a real GPU: a shard's hbm pool in one process, a caller in another, one GPU.
// Blocks of Llama-3-8B go both ways through mapped extents and are compared, to and from device and
// host memory; the lane is timed beside the same scatter from memory of our own; and the
// shard is killed while its memory is mapped.
//   reprise-gpu-view [--skip-exit=N]
// Without a GPU, or where CUDA IPC is refused, it says SKIPPED and why.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/view/view_lane.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "service/pool/hbm_pool.h"
#include "tests/gpu/must.h"
#include "tests/support/lane_ends.h"
#include "tests/support/view_host/device_slots.h"
#include "tests/support/view_host/hbm_slots.h"
#include "tests/support/view_host/view_host_main.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::gpu_view {
namespace {

using lanes::MemoryKind;
using testing::CheckingSink;
using testing::CopyByGpu;
using testing::Iota;
using testing::PatternSource;
using testing::ViewHostProcess;

// Llama-3-8B in bf16: a block of 16 tokens is 2 MiB; a prompt of 2048 tokens has 128.
constexpr uint32_t kLayers = 32;
constexpr uint32_t kHeads = 8;
constexpr uint32_t kTokens = 16;
constexpr uint32_t kRowBytes = 256;
constexpr uint64_t kPlaneBytes = uint64_t{kHeads} * kTokens * kRowBytes;
constexpr uint64_t kBlockBytes = 2 * kLayers * kPlaneBytes;
constexpr uint32_t kBlocks = 128;
constexpr uint32_t kWritten = 16;
constexpr uint64_t kPoolBytes = 1ull << 30;
constexpr int kRounds = 25;
constexpr AttachmentId kAttachment(606);

int failures = 0;

void Check(bool holds, const std::string& claim, const absl::Status& seen = absl::OkStatus()) {
  if (!holds) ++failures;
  std::printf("%s: %s%s%s\n", holds ? "ok" : "FAILED", claim.c_str(), seen.ok() ? "" : ": ",
              std::string(seen.message()).c_str());
  std::fflush(stdout);
}

absl::Time Soon() {
  return absl::Now() + absl::Seconds(60);
}

// The other process.
int RunHost(const std::string& attachment) {
  auto pool = Must(shard::HbmPool::Create(Must(shard::OpenHbmDevice(0)), kPoolBytes));
  testing::HbmSlots slots(*pool, KeySpaceId(1));
  testing::MemoryLaneHost host(
      AttachmentId(std::stoull(attachment)), [&](uint64_t bytes) { return slots.Allocate(bytes); },
      CopyByGpu);
  return testing::RunViewHost(
      host, slots,
      {.shares = [&] { return slots.shares(); }, .unshared = [&] { return slots.unshared(); }});
}

// An engine's paged K/V in device memory, into which a run of blocks is scattered in one launch.
class Engine {
 public:
  Engine()
      : memory_(Must(kernels::DeviceBuffer::Create(0, kBlocks * kBlockBytes))),
        plan_(Must(kernels::GpuPlan::Create(0, PlanOver(memory_.data())))),
        pages_(Must(kernels::PinnedBuffer::Create(kBlocks * sizeof(int64_t)))),
        table_(Must(kernels::PinnedBuffer::Create(kBlocks * sizeof(uint8_t*)))),
        stream_(Must(kernels::Stream::Create(0))) {
    auto* const pages = reinterpret_cast<int64_t*>(pages_.data());
    for (uint32_t i = 0; i < kBlocks; ++i) pages[i] = (i * 37) % kBlocks;
  }

  absl::Status Scatter(std::span<const std::span<const uint8_t>> blocks) {
    auto** const table = reinterpret_cast<uint8_t**>(table_.data());
    for (size_t i = 0; i < blocks.size(); ++i) table[i] = const_cast<uint8_t*>(blocks[i].data());
    const kernels::BlockRun run{.page_table = reinterpret_cast<const int64_t*>(pages_.data()),
                                .block_table = table,
                                .block_count = static_cast<uint32_t>(blocks.size())};
    absl::Status status = kernels::ScatterRun(plan_, run, stream_.handle());
    return status.ok() ? stream_.Synchronize() : status;
  }

 private:
  static kernels::PagedPlan PlanOver(uint8_t* memory) {
    kernels::PagedPlan plan;
    for (uint32_t i = 0; i < 2 * kLayers; ++i) {
      plan.planes.push_back({.base = memory + i * kBlocks * kPlaneBytes,
                             .page_stride_bytes = kPlaneBytes,
                             .head_stride_bytes = kRowBytes,
                             .token_stride_bytes = kHeads * kRowBytes});
    }
    plan.planes_per_layer = 2;
    plan.heads = kHeads;
    plan.page_tokens = kTokens;
    plan.block_tokens = kTokens;
    plan.row_data_bytes = kRowBytes;
    plan.row_bytes = kRowBytes;
    plan.block_bytes = kBlockBytes;
    return plan;
  }

  const kernels::DeviceBuffer memory_;
  const kernels::GpuPlan plan_;
  const kernels::PinnedBuffer pages_;
  const kernels::PinnedBuffer table_;
  kernels::Stream stream_;
};

// What a worker's sink does but for the checksum, which costs the same on every lane.
class EngineSink final : public lanes::BlockSink {
 public:
  explicit EngineSink(Engine& engine) : engine_(engine) {}
  MemoryKind memory() const override { return MemoryKind::kDevice; }
  std::span<uint8_t> Buffer(uint32_t) override { return {}; }
  absl::Status Complete(uint32_t) override { return absl::InternalError("host bytes came"); }
  absl::Status Deliver(uint32_t, std::span<const uint8_t>) override {
    return absl::InternalError("host bytes came");
  }
  absl::Status DeliverDevice(uint32_t, std::span<const std::span<const uint8_t>> blocks) override {
    return engine_.Scatter(blocks);
  }

 private:
  Engine& engine_;
};

template <typename Work>
double MedianMs(const Work& work) {
  std::vector<double> ms;
  for (int round = -3; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    Must(work());
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (round >= 0) ms.push_back(took.count());
  }
  std::sort(ms.begin(), ms.end());
  return ms[ms.size() / 2];
}

void TimeLane(lanes::Lane& lane, LeaseId lease) {
  Engine engine;
  const auto own = Must(kernels::DeviceBuffer::Create(0, kBlocks * kBlockBytes));
  std::vector<std::span<const uint8_t>> blocks;
  for (uint32_t i = 0; i < kBlocks; ++i)
    blocks.emplace_back(own.data() + i * kBlockBytes, kBlockBytes);
  const double alone = MedianMs([&] { return engine.Scatter(blocks); });
  EngineSink sink(engine);
  const double lane_ms = MedianMs([&] {
    return lane.Read({lease, 0, kBlocks, kBlockBytes}, sink, Soon());
  });
  const double gigabytes = 1e-9 * static_cast<double>(kBlocks * kBlockBytes);
  std::printf("\nView lane: scatter of %u blocks of 2 MiB, median of %d\n\n", kBlocks, kRounds);
  std::printf("| case | ms | GB/s | times the control |\n");
  std::printf("|---|---:|---:|---:|\n");
  std::printf("| from memory of our own (control) | %.3f | %.0f | |\n", alone,
              1e3 * gigabytes / alone);
  std::printf("| through the view lane, with what one call of it costs | %.3f | %.0f | %.2f |\n\n",
              lane_ms, 1e3 * gigabytes / lane_ms, lane_ms / alone);
}

void ReadAll(lanes::Lane& lane, LeaseId lease, uint64_t seed, uint32_t blocks, bool device,
             const std::string& claim) {
  CheckingSink sink({.seed = seed,
                     .blocks = blocks,
                     .block_bytes = kBlockBytes,
                     .copy = device ? testing::CopyBytes(CopyByGpu) : testing::CopyBytes()});
  const absl::Status status = lane.Read({lease, 0, blocks, kBlockBytes}, sink, Soon());
  Check(status.ok() && sink.completed() == Iota(blocks) && sink.all_equal(), claim, status);
}

void WriteAndRead(lanes::Lane& lane, ViewHostProcess& host, bool device, const std::string& claim) {
  const ReservationId reservation = host.Reserve(kWritten, kBlockBytes);
  PatternSource source(91, Iota(kWritten), kBlockBytes, -1,
                       device ? testing::CopyBytes(CopyByGpu) : testing::CopyBytes());
  const absl::Status status =
      lane.Write({reservation, Iota(kWritten), kBlockBytes}, source, Soon());
  if (!status.ok()) return Check(false, claim, status);
  ReadAll(lane, host.LeaseWritten(reservation), 91, kWritten, true, claim);
}

int RunCaller(int skip_exit) {
  if (kernels::DeviceCount() == 0) {
    std::printf("SKIPPED: no GPU: %s\n", kernels::WhyNoDevice().c_str());
    return skip_exit;
  }
  ViewHostProcess host(kAttachment, {.program = "/proc/self/exe", .memory = "host"});
  std::unique_ptr<lanes::ViewLane> lane =
      Must(lanes::ViewLane::Connect({.socket = host.address(), .attachment = kAttachment}, Soon()));
  const LeaseId lease = host.Lease({.seed = 7, .blocks = kBlocks, .block_bytes = kBlockBytes});
  CheckingSink probe({.seed = 7, .block_bytes = kBlockBytes, .copy = CopyByGpu});
  const absl::Status first = lane->Read({lease, 0, 1, kBlockBytes}, probe, Soon());
  if (lanes::IsLaneDown(first)) {
    std::printf("SKIPPED: CUDA IPC does not work here, and the lane says so: %s\n",
                std::string(first.message()).c_str());
    return skip_exit;
  }
  ReadAll(*lane, lease, 7, kBlocks, true, "blocks arrive in device memory as they are");
  ReadAll(*lane, lease, 7, kWritten, false, "blocks arrive in host memory as they are");
  WriteAndRead(*lane, host, true, "what is written from device memory is read");
  WriteAndRead(*lane, host, false, "what is written from host memory is read");
  const uint64_t extents = host.Shares();
  ReadAll(*lane, lease, 7, kBlocks, true, "blocks arrive again");
  Check(host.Shares() == extents, "an extent is shared once");
  TimeLane(*lane, lease);

  lane.reset();
  host.EndAttachment();
  const absl::Time end = Soon();
  while (host.Unshared() == 0 && absl::Now() < end) std::this_thread::yield();
  Check(host.Unshared() == 1, "the shard has its extents back when the caller unmapped them");

  ViewHostProcess victim(kAttachment, {.program = "/proc/self/exe", .memory = "host"});
  lane = Must(
      lanes::ViewLane::Connect({.socket = victim.address(), .attachment = kAttachment}, Soon()));
  const LeaseId last = victim.Lease({.seed = 8, .blocks = 8, .block_bytes = kBlockBytes});
  ReadAll(*lane, last, 8, 8, true, "another shard's blocks arrive");
  victim.Kill();
  CheckingSink sink({.seed = 8, .blocks = 8, .block_bytes = kBlockBytes, .copy = CopyByGpu});
  const absl::Status down = lane->Read({last, 0, 8, kBlockBytes}, sink, Soon());
  Check(lanes::IsLaneDown(down), "a shard that was killed while mapped is LANE_DOWN", down);
  lane.reset();
  Check(kernels::DeviceBuffer::Create(0, kBlockBytes).ok(), "the GPU works on afterwards");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace reprise::gpu_view

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[2]) == "host") return reprise::gpu_view::RunHost(argv[1]);
  int skip_exit = 0;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--skip-exit=")) skip_exit = std::atoi(argument.data());
  }
  return reprise::gpu_view::RunCaller(skip_exit);
}
