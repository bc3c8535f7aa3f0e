// What the GPU tests share: an engine whose memory is mirrored on the device, and tables of pages
// and blocks there.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "tests/gpu/must.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::kernels {

#define REPRISE_ASSERT_OK(expression)                \
  do {                                               \
    const absl::Status status_ = (expression);       \
    ASSERT_TRUE(status_.ok()) << status_.ToString(); \
  } while (false)

inline DeviceBuffer Upload(const void* bytes, uint64_t size_bytes) {
  DeviceBuffer buffer = Must(DeviceBuffer::Create(0, size_bytes));
  Stream stream = Must(Stream::Create(0));
  Must(CopyAsync(buffer.data(), bytes, size_bytes, stream.handle()));
  Must(stream.Synchronize());
  return buffer;
}

template <typename T>
DeviceBuffer Upload(const std::vector<T>& values) {
  return Upload(values.data(), values.size() * sizeof(T));
}

inline std::vector<uint8_t> Download(const uint8_t* memory, uint64_t size_bytes) {
  std::vector<uint8_t> bytes(size_bytes);
  Stream stream = Must(Stream::Create(0));
  Must(CopyAsync(bytes.data(), memory, size_bytes, stream.handle()));
  Must(stream.Synchronize());
  return bytes;
}

// The same engine twice: on the host, where the oracle works, and on the device.
class MirroredEngine {
 public:
  explicit MirroredEngine(const EngineShape& shape, uint64_t seed = 1)
      : host_(shape, seed), memory_(Upload(host_.data(), host_.size_bytes())) {
    PagedPlan plan = host_.plan();
    for (PagedPlane& plane : plan.planes) plane.base = memory_.data() + (plane.base - host_.data());
    plan_.emplace(Must(GpuPlan::Create(0, plan)));
  }

  PagedEngine& host() { return host_; }
  const GpuPlan& gpu_plan() const { return *plan_; }
  std::vector<uint8_t> DeviceSnapshot() const {
    return Download(memory_.data(), memory_.size_bytes());
  }

 private:
  PagedEngine host_;
  DeviceBuffer memory_;
  std::optional<GpuPlan> plan_;
};

// A run of blocks in device memory, filled with rubbish, over random pages of which some are not
// there.
class DeviceRun {
 public:
  DeviceRun(const PagedPlan& plan, uint32_t pages, uint32_t blocks, uint64_t block_bytes)
      : pages_per_block_(plan.PagesPerBlock()),
        block_bytes_(block_bytes),
        block_count_(blocks),
        rubbish_(blocks * block_bytes, 0xA5),
        blocks_(Upload(rubbish_)) {
    std::mt19937_64 random(61);
    std::vector<int64_t> all(pages);
    for (uint32_t i = 0; i < pages; ++i) all[i] = i;
    std::shuffle(all.begin(), all.end(), random);
    for (uint64_t i = 0; i < uint64_t{blocks} * pages_per_block_; ++i)
      page_table_.push_back(all[i % all.size()]);
    page_table_[random() % page_table_.size()] = kNoPage;
    std::vector<uint8_t*> table;
    for (uint32_t i = 0; i < blocks; ++i) table.push_back(blocks_.data() + i * block_bytes);
    device_pages_.emplace(Upload(page_table_));
    device_table_.emplace(Upload(table));
  }

  BlockRun Run(const BlockPart& part) const {
    BlockRun run;
    run.page_table = reinterpret_cast<const int64_t*>(device_pages_->data());
    run.block_table = reinterpret_cast<uint8_t* const*>(device_table_->data());
    run.block_count = block_count_;
    run.part = part;
    return run;
  }
  BlockPart PartOf(uint32_t block, const BlockPart& part) const {
    BlockPart result = part;
    if (block + 1 != block_count_) result.tokens = BlockPart::kAll;
    return result;
  }
  std::vector<int64_t> PagesOf(uint32_t block) const {
    const auto first = page_table_.begin() + static_cast<int64_t>(block) * pages_per_block_;
    return {first, first + pages_per_block_};
  }
  uint8_t* block(uint32_t index) const { return blocks_.data() + index * block_bytes_; }
  std::vector<uint8_t> Download() const {
    return kernels::Download(blocks_.data(), blocks_.size_bytes());
  }
  const std::vector<uint8_t>& rubbish() const { return rubbish_; }
  uint32_t block_count() const { return block_count_; }
  uint64_t block_bytes() const { return block_bytes_; }
  const uint8_t* const* device_table() const {
    return reinterpret_cast<const uint8_t* const*>(device_table_->data());
  }

 private:
  uint32_t pages_per_block_;
  uint64_t block_bytes_;
  uint32_t block_count_;
  std::vector<uint8_t> rubbish_;
  DeviceBuffer blocks_;
  std::vector<int64_t> page_table_;
  std::optional<DeviceBuffer> device_pages_;
  std::optional<DeviceBuffer> device_table_;
};

// As many blocks as the engine has pages for without using one twice, at most 5.
inline uint32_t BlocksFor(const EngineShape& shape) {
  return std::min<uint32_t>(5, shape.pages * shape.page_tokens / shape.block_tokens);
}

}  // namespace reprise::kernels
