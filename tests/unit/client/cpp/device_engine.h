// An engine whose paged K/V is in GPU memory, beside the same engine in host memory, where the
// oracle of the copy tests works.
#pragma once

#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "client/cpp/device_memory.h"
#include "gtest/gtest.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/status_macros.h"
#include "tests/unit/kernels/paged_engine.h"

namespace reprise::client::testing {

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) ADD_FAILURE() << value.status();
  REPRISE_CHECK(value.ok());
  return *std::move(value);
}
inline void Must(const absl::Status& status) {
  if (!status.ok()) ADD_FAILURE() << status;
  REPRISE_CHECK(status.ok());
}

inline void Copy(void* to, const void* from, uint64_t bytes) {
  const kernels::Stream stream = Must(kernels::Stream::Create(0));
  Must(kernels::CopyAsync(to, from, bytes, stream.handle()));
  Must(stream.Synchronize());
}

inline kernels::DeviceBuffer Upload(const uint8_t* bytes, uint64_t size_bytes) {
  kernels::DeviceBuffer buffer = Must(kernels::DeviceBuffer::Create(0, size_bytes));
  Copy(buffer.data(), bytes, size_bytes);
  return buffer;
}

inline std::vector<uint8_t> Download(const uint8_t* memory, uint64_t size_bytes) {
  std::vector<uint8_t> bytes(size_bytes);
  Copy(bytes.data(), memory, size_bytes);
  return bytes;
}

inline BlockLayout LayoutOfShape(const kernels::EngineShape& shape) {
  BlockLayout layout;
  layout.layers = shape.layers;
  layout.planes = shape.planes_per_layer;
  layout.heads = shape.heads;
  layout.tokens = shape.block_tokens;
  layout.row_data_bytes = shape.row_data_bytes;
  layout.row_bytes = (shape.row_data_bytes + 15) / 16 * 16;
  layout.plane_bytes = layout.heads * layout.tokens * layout.row_bytes;
  layout.layer_bytes = layout.planes * layout.plane_bytes;
  layout.block_bytes = layout.layers * layout.layer_bytes;
  return layout;
}

// K/V of two layers and two heads in bf16, pages of 16 tokens, for tests of the verbs.
inline const kernels::EngineShape kSmallEngine{
    .name = "nhd", .layers = 2, .heads = 2, .row_data_bytes = 64, .pages = 20};
inline CacheSpec SmallEngineSpec() {
  CacheSpec spec;
  spec.model = "device";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.head_dim = 32;
  spec.block_tokens = 16;
  return spec;
}

class DeviceEngine {
 public:
  explicit DeviceEngine(const kernels::EngineShape& shape, uint64_t seed = 1)
      : host_(shape, seed),
        memory_(Upload(host_.data(), host_.size_bytes())),
        layout_(LayoutOfShape(shape)) {
    auto planes = host_.plan().planes;
    for (auto& plane : planes) plane.base = memory_.data() + (plane.base - host_.data());
    plan_ = Must(MakeDevicePlan(layout_, std::move(planes), shape.page_tokens, 0));
    for (int64_t page = 0; page < shape.pages; ++page) pages_.push_back(page);
    std::mt19937_64 random(seed);
    std::shuffle(pages_.begin(), pages_.end(), random);
  }

  const BlockLayout& layout() const { return layout_; }
  kernels::PagedEngine& host() { return host_; }
  uint32_t blocks() const {
    return static_cast<uint32_t>(pages_.size() / host_.plan().PagesPerBlock());
  }
  // All of it, in a random order of pages.
  CallerMemory Memory() const {
    CallerMemory memory;
    memory.plan = plan_.plan;
    memory.gpu_plan = plan_.uploaded;
    memory.device = 0;
    memory.pages = pages_;
    return memory;
  }
  std::vector<int64_t> PagesOf(uint32_t block) const {
    const size_t per_block = host_.plan().PagesPerBlock();
    const auto first = pages_.begin() + static_cast<int64_t>(block * per_block);
    return {first, first + static_cast<int64_t>(per_block)};
  }
  // What block `block` packs to.
  std::vector<uint8_t> Block(uint32_t block) {
    std::vector<uint8_t> bytes(layout_.block_bytes);
    host_.NaiveGather({}, PagesOf(block), bytes);
    return bytes;
  }
  // Makes the host's side what the device's is.
  void TakeFromDevice() { Copy(host_.data(), memory_.data(), memory_.size_bytes()); }
  // The host's side is what the device's must be.
  ::testing::AssertionResult Same() const {
    if (Download(memory_.data(), memory_.size_bytes()) == host_.Snapshot()) {
      return ::testing::AssertionSuccess();
    }
    return ::testing::AssertionFailure() << "the device's memory is not the oracle's";
  }

 private:
  kernels::PagedEngine host_;
  kernels::DeviceBuffer memory_;
  BlockLayout layout_;
  DevicePlan plan_;
  std::vector<int64_t> pages_;
};

// Blocks in device memory, as a lane has them in a shard's slots.
class DeviceSlots {
 public:
  DeviceSlots(uint64_t block_bytes, uint32_t blocks)
      : block_bytes_(block_bytes),
        blocks_(blocks),
        memory_(Must(kernels::DeviceBuffer::Create(0, block_bytes * blocks))) {}

  std::vector<std::span<uint8_t>> All(uint32_t first, uint32_t count) const {
    std::vector<std::span<uint8_t>> slots;
    for (uint32_t i = first; i < first + count; ++i) {
      slots.emplace_back(memory_.data() + i * block_bytes_, block_bytes_);
    }
    return slots;
  }
  std::vector<std::span<const uint8_t>> AllConst(uint32_t first, uint32_t count) const {
    const auto slots = All(first, count);
    return {slots.begin(), slots.end()};
  }
  void Put(uint32_t i, const std::vector<uint8_t>& bytes) {
    Copy(memory_.data() + i * block_bytes_, bytes.data(), bytes.size());
  }
  std::vector<uint8_t> Get(uint32_t i) const {
    return Download(memory_.data() + i * block_bytes_, block_bytes_);
  }
  uint32_t blocks() const { return blocks_; }

 private:
  const uint64_t block_bytes_;
  const uint32_t blocks_;
  kernels::DeviceBuffer memory_;
};

// Blocks in pinned host memory, as a lane has them in a shard's slots. Every `gap`-th slot does not
// lie next to the one before it.
class PinnedSlots {
 public:
  PinnedSlots(uint64_t block_bytes, uint32_t blocks, uint32_t gap = 3)
      : block_bytes_(block_bytes),
        memory_(Must(kernels::PinnedBuffer::Create((blocks + blocks / gap + 1) * block_bytes))) {
    for (uint32_t i = 0; i < blocks; ++i) {
      slots_.emplace_back(memory_.data() + (i + i / gap) * block_bytes, block_bytes);
    }
  }

  std::span<const std::span<uint8_t>> All() const { return slots_; }
  std::vector<std::span<const uint8_t>> AllConst(uint32_t first, uint32_t count) const {
    return {slots_.begin() + first, slots_.begin() + first + count};
  }
  void Put(uint32_t i, const std::vector<uint8_t>& bytes) {
    std::copy(bytes.begin(), bytes.end(), slots_[i].begin());
  }
  std::vector<uint8_t> Get(uint32_t i) const { return {slots_[i].begin(), slots_[i].end()}; }

 private:
  const uint64_t block_bytes_;
  kernels::PinnedBuffer memory_;
  std::vector<std::span<uint8_t>> slots_;
};

}  // namespace reprise::client::testing
