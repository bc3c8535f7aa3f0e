// Host memory as the NCCL lane's device, and the fake libnccl's own controls.
#pragma once

#include <dlfcn.h>

#include <memory>
#include <string>
#include <utility>

#include "cluster/lanes/nccl/nccl_device.h"
#include "cluster/lanes/nccl/nccl_library.h"
#include "proto/types/status_macros.h"
#include "tests/support/fake_nccl/fake_stream.h"

namespace reprise::testing {

class FakeDevice final : public lanes::NcclDevice {
 public:
  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kHost; }
  absl::Status Enter() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<lanes::DeviceQueue>> CreateQueue() override {
    return std::make_unique<Queue>();
  }
  absl::StatusOr<std::unique_ptr<lanes::DeviceMemory>> Allocate(uint64_t bytes) override {
    return std::make_unique<Memory>(bytes);
  }

 private:
  class Queue final : public lanes::DeviceQueue {
   public:
    cudaStream_t handle() const override { return reinterpret_cast<cudaStream_t>(&stream_); }
    absl::StatusOr<bool> Idle() override { return stream_.groups_in_flight == 0; }

   private:
    mutable FakeStream stream_;
  };
  class Memory final : public lanes::DeviceMemory {
   public:
    explicit Memory(uint64_t bytes) : size_(bytes), bytes_(new uint8_t[bytes]()) {}
    std::span<uint8_t> bytes() const override { return {bytes_.get(), size_}; }

   private:
    const uint64_t size_;
    const std::unique_ptr<uint8_t[]> bytes_;
  };
};

inline std::shared_ptr<const lanes::NcclLibrary> FakeNccl() {
  auto nccl = lanes::NcclLibrary::Load(REPRISE_FAKE_NCCL_LIBRARY);
  REPRISE_CHECK(nccl.ok());
  return *std::move(nccl);
}

inline void SetNcclFaults(const std::string& faults) {
  void* library = ::dlopen(REPRISE_FAKE_NCCL_LIBRARY, RTLD_NOW);
  reinterpret_cast<void (*)(const char*)>(::dlsym(library, "RepriseFakeNcclSetFaults"))(
      faults.c_str());
}

// Communicators that were not aborted yet, in this process.
inline int LiveCommunicators() {
  void* library = ::dlopen(REPRISE_FAKE_NCCL_LIBRARY, RTLD_NOW);
  return reinterpret_cast<int (*)()>(::dlsym(library, "RepriseFakeNcclCommunicators"))();
}

}  // namespace reprise::testing
