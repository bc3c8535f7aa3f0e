// Host memory as the NCCL lane's device, and the fake libnccl's own controls.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cluster/lanes/nccl/nccl_device.h"
#include "cluster/lanes/nccl/nccl_library.h"
#include "proto/types/status_macros.h"
#include "tests/support/fake_nccl/fake_stream.h"

namespace reprise::testing {

template <typename Function>
Function FakeNcclSymbol(const char* name) {
  void* library = ::dlopen(REPRISE_FAKE_NCCL_LIBRARY, RTLD_NOW);
  REPRISE_CHECK(library != nullptr);
  return reinterpret_cast<Function>(::dlsym(library, name));
}

class FakeDevice final : public lanes::NcclDevice {
 public:
  explicit FakeDevice(lanes::MemoryKind memory = lanes::MemoryKind::kHost, int index = 0)
      : memory_(memory), index_(index) {}
  lanes::MemoryKind memory() const override { return memory_; }
  int index() const override { return index_; }
  absl::Status Enter() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<lanes::DeviceQueue>> CreateQueue() override {
    return std::make_unique<Queue>();
  }
  absl::StatusOr<std::unique_ptr<lanes::DeviceMemory>> Allocate(uint64_t bytes) override {
    if (allocating) allocating(bytes);
    return std::make_unique<Memory>(bytes, allocated_);
  }
  // Called at the start of Allocate. Set while no link works.
  std::function<void(uint64_t bytes)> allocating;
  // What was allocated and lives.
  uint64_t allocated_bytes() const { return *allocated_; }

 private:
  class Queue final : public lanes::DeviceQueue {
   public:
    Queue() { FakeNcclSymbol<void (*)(void*)>("RepriseFakeNcclAddStream")(&stream_); }
    ~Queue() override { FakeNcclSymbol<void (*)(void*)>("RepriseFakeNcclDropStream")(&stream_); }
    cudaStream_t handle() const override { return reinterpret_cast<cudaStream_t>(&stream_); }
    absl::StatusOr<bool> Idle() override { return stream_.groups_in_flight == 0; }

   private:
    mutable FakeStream stream_;
  };
  class Memory final : public lanes::DeviceMemory {
   public:
    Memory(uint64_t bytes, std::shared_ptr<std::atomic<uint64_t>> allocated)
        : size_(bytes), bytes_(new uint8_t[bytes]()), allocated_(std::move(allocated)) {
      *allocated_ += size_;
    }
    ~Memory() override { *allocated_ -= size_; }
    std::span<uint8_t> bytes() const override { return {bytes_.get(), size_}; }

   private:
    const uint64_t size_;
    const std::unique_ptr<uint8_t[]> bytes_;
    const std::shared_ptr<std::atomic<uint64_t>> allocated_;
  };

  const lanes::MemoryKind memory_;
  const int index_;
  const std::shared_ptr<std::atomic<uint64_t>> allocated_ =
      std::make_shared<std::atomic<uint64_t>>(0);
};

inline std::shared_ptr<const lanes::NcclLibrary> FakeNccl() {
  auto nccl = lanes::NcclLibrary::Load(REPRISE_FAKE_NCCL_LIBRARY);
  REPRISE_CHECK(nccl.ok());
  return *std::move(nccl);
}

inline void SetNcclFaults(const std::string& faults) {
  FakeNcclSymbol<void (*)(const char*)>("RepriseFakeNcclSetFaults")(faults.c_str());
}

// Communicators that were not aborted yet, in this process.
inline int LiveCommunicators() {
  return FakeNcclSymbol<int (*)()>("RepriseFakeNcclCommunicators")();
}

}  // namespace reprise::testing
