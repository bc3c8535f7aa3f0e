// A caller's end of a lane for tests: a sink that compares with the pattern and a source that gives
// it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cluster/lanes/lane.h"
#include "gtest/gtest.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {

// Memory that can be taken away, so that a touch after the call has returned kills the test.
class RevocableMemory {
 public:
  explicit RevocableMemory(uint64_t bytes)
      : bytes_(bytes),
        base_(static_cast<uint8_t*>(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~RevocableMemory() { munmap(base_, bytes_); }
  RevocableMemory(const RevocableMemory&) = delete;
  RevocableMemory& operator=(const RevocableMemory&) = delete;
  void Revoke() { ASSERT_EQ(mprotect(base_, bytes_, PROT_NONE), 0); }
  uint8_t* data() const { return base_; }

 private:
  const uint64_t bytes_;
  uint8_t* const base_;
};

// Compares what arrives with the pattern and notes the order in which it arrives.
class CheckingSink final : public lanes::BlockSink {
 public:
  struct Options {
    uint64_t seed = 1;
    uint32_t first = 0;
    uint32_t blocks = 1;
    uint64_t block_bytes = 0;
    int64_t fail_at = -1;  // Complete or Deliver of this block is ABORTED
    CopyBytes copy = {};   // a sink in device memory: how it gets at the bytes there
  };
  explicit CheckingSink(Options options)
      : options_(options), memory_(options.blocks * options.block_bytes) {}

  std::span<uint8_t> Buffer(uint32_t i) override {
    return {memory_.data() + i * options_.block_bytes, options_.block_bytes};
  }
  absl::Status Complete(uint32_t i) override { return Take(i, Buffer(i)); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    return Take(i, bytes);
  }
  lanes::MemoryKind memory() const override {
    return options_.copy ? lanes::MemoryKind::kDevice : lanes::MemoryKind::kHost;
  }
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    device_calls_.push_back(static_cast<uint32_t>(blocks.size()));
    for (uint32_t i = 0; i < blocks.size(); ++i) {
      const std::span<uint8_t> buffer = Buffer(first + i);
      EXPECT_EQ(blocks[i].size(), buffer.size());
      options_.copy(buffer.data(), blocks[i].data(), buffer.size());
      if (absl::Status status = Take(first + i, buffer); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status DeliverPinned(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    pinned_calls_.push_back(static_cast<uint32_t>(blocks.size()));
    return BlockSink::DeliverPinned(first, blocks);
  }

  // How many blocks each call of DeliverDevice, and of DeliverPinned, brought.
  const std::vector<uint32_t>& device_calls() const { return device_calls_; }
  const std::vector<uint32_t>& pinned_calls() const { return pinned_calls_; }
  const std::vector<uint32_t>& completed() const { return completed_; }
  bool all_equal() const { return all_equal_; }
  void Revoke() { memory_.Revoke(); }

 private:
  absl::Status Take(uint32_t i, std::span<const uint8_t> bytes) {
    if (options_.fail_at == i) return absl::AbortedError("the sink has had enough");
    completed_.push_back(i);
    const std::vector<uint8_t> expected =
        PatternBlock(options_.seed, options_.first + i, options_.block_bytes);
    all_equal_ =
        all_equal_ && std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end());
    return absl::OkStatus();
  }

  const Options options_;
  RevocableMemory memory_;
  std::vector<uint32_t> completed_;
  std::vector<uint32_t> device_calls_;
  std::vector<uint32_t> pinned_calls_;
  bool all_equal_ = true;
};

// Gives the pattern of the key indexes in `blocks`.
class PatternSource final : public lanes::BlockSource {
 public:
  PatternSource(uint64_t seed, std::vector<uint32_t> blocks, uint64_t block_bytes,
                int64_t fail_at = -1, CopyBytes copy = nullptr)
      : seed_(seed),
        blocks_(std::move(blocks)),
        block_bytes_(block_bytes),
        fail_at_(fail_at),
        copy_(std::move(copy)) {}

  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    if (fail_at_ == i) return absl::AbortedError("the source has run dry");
    scratch_ = PatternBlock(seed_, blocks_[i], block_bytes_);
    return std::span<const uint8_t>(scratch_);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    if (fail_at_ == i) return absl::AbortedError("the source has run dry");
    FillPattern(seed_, blocks_[i], slot);
    return absl::OkStatus();
  }
  absl::Status FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    pinned_calls_.push_back(static_cast<uint32_t>(slots.size()));
    return BlockSource::FillPinned(first, slots);
  }
  // How many slots each call of FillPinned brought.
  const std::vector<uint32_t>& pinned_calls() const { return pinned_calls_; }
  lanes::MemoryKind memory() const override {
    return copy_ ? lanes::MemoryKind::kDevice : lanes::MemoryKind::kHost;
  }
  absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    for (uint32_t i = 0; i < slots.size(); ++i) {
      absl::StatusOr<std::span<const uint8_t>> bytes = Bytes(first + i);
      if (!bytes.ok()) return bytes.status();
      copy_(slots[i].data(), bytes->data(), bytes->size());
    }
    return absl::OkStatus();
  }

 private:
  const uint64_t seed_;
  const std::vector<uint32_t> blocks_;
  const uint64_t block_bytes_;
  const int64_t fail_at_;
  const CopyBytes copy_;
  std::vector<uint8_t> scratch_;
  std::vector<uint32_t> pinned_calls_;
};

inline std::vector<uint32_t> Iota(uint32_t n, uint32_t from = 0) {
  std::vector<uint32_t> v(n);
  for (uint32_t i = 0; i < n; ++i) v[i] = from + i;
  return v;
}

}  // namespace reprise::testing
