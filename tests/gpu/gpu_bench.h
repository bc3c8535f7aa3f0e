// What the GPU benchmark's parts share: a machine's buffers, timing by CUDA events, and the rows
// that end in the table.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"

namespace reprise::gpu_bench {

inline constexpr int kWarmUps = 3;
inline constexpr int kIterations = 25;

// Llama-3-8B in bf16: a block of 16 tokens is 2 MiB, one layer of it 64 KiB, one plane of that 32
// KiB.
inline constexpr uint32_t kLayers = 32;
inline constexpr uint32_t kHeads = 8;
inline constexpr uint32_t kTokens = 16;
inline constexpr uint32_t kRowBytes = 256;
inline constexpr uint64_t kFragmentBytes = uint64_t{kHeads} * kTokens * kRowBytes;
inline constexpr uint64_t kLayerBytes = 2 * kFragmentBytes;
inline constexpr uint64_t kBlockBytes = kLayers * kLayerBytes;
inline constexpr uint32_t kBlocks = 512;  // 1 GiB: far more than any cache
inline constexpr uint64_t kRunBytes = kBlocks * kBlockBytes;
inline constexpr uint32_t kPromptBlocks = 128;

struct Row {
  std::string goal;  // "H1", or "" for a control
  std::string name;
  double gb_per_s = 0;  // bytes that the row says it moves, per second; the median
  double spread = 0;    // (slowest - fastest) / median
  std::string control;
  double ratio = 0;  // what the goal is about; 0 for controls
  double wanted = 0;
  bool at_most = false;  // the ratio is to stay below `wanted`, not above
};

class Table {
 public:
  void Control(const std::string& name, double gb_per_s, double spread);
  // ratio = gb_per_s / control's, unless given.
  void Case(const Row& row);
  double RateOf(const std::string& name) const;
  const std::vector<Row>& rows() const { return rows_; }

 private:
  std::vector<Row> rows_;
};

struct Timing {
  double median_ms = 0;
  double spread = 0;
};

// Times `work`, which only enqueues on `stream`: the median of kIterations after warm-up.
Timing Time(kernels::GpuStream stream, const std::function<void(int iteration)>& work);
double Rate(uint64_t bytes, const Timing& timing);

// Random device memory, and an engine and blocks over it.
struct Bench {
  static Bench Create();

  kernels::PagedPlan Plan(bool nhd) const;
  // Tables over the first `blocks` blocks, each `stride_bytes` after the other from `base` on,
  // pages shuffled.
  kernels::BlockRun RunOver(uint8_t* base, uint64_t stride_bytes, uint32_t blocks);

  kernels::Stream stream;
  kernels::Stream other_stream;
  kernels::DeviceBuffer engine;  // kRunBytes
  kernels::DeviceBuffer blocks;  // kRunBytes
  kernels::PinnedBuffer pinned;  // kRunBytes
  std::vector<kernels::DeviceBuffer> tables;
};

void CopyCases(Bench& bench, Table& table);      // H1, H5
void HostCases(Bench& bench, Table& table);      // H2, H3, H4
void IpcCases(Bench& bench, Table& table);       // H6
void QuantizeCases(Bench& bench, Table& table);  // H7, H8
void ChecksumCases(Bench& bench, Table& table);

// The second process of H6: opens the handle given in hex and copies from it. Prints milliseconds;
// the exit status.
int IpcChild(const std::string& handle_hex);

}  // namespace reprise::gpu_bench
