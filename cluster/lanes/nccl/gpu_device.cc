#include "cluster/lanes/nccl/nccl_device.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

class GpuQueue final : public DeviceQueue {
 public:
  explicit GpuQueue(kernels::Stream stream) : stream_(std::move(stream)) {}
  cudaStream_t handle() const override { return stream_.handle(); }
  absl::StatusOr<bool> Idle() override { return stream_.Idle(); }

 private:
  kernels::Stream stream_;
};

class GpuMemory final : public DeviceMemory {
 public:
  explicit GpuMemory(kernels::DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  std::span<uint8_t> bytes() const override { return {buffer_.data(), buffer_.size_bytes()}; }

 private:
  kernels::DeviceBuffer buffer_;
};

class Gpu final : public NcclDevice {
 public:
  explicit Gpu(int device) : device_(device) {}
  MemoryKind memory() const override { return MemoryKind::kDevice; }
  int index() const override { return device_; }
  absl::Status Enter() override { return kernels::UseDevice(device_); }
  absl::StatusOr<std::unique_ptr<DeviceQueue>> CreateQueue() override {
    REPRISE_ASSIGN_OR_RETURN(kernels::Stream stream, kernels::Stream::Create(device_));
    return std::make_unique<GpuQueue>(std::move(stream));
  }
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(uint64_t bytes) override {
    REPRISE_ASSIGN_OR_RETURN(kernels::DeviceBuffer buffer,
                             kernels::DeviceBuffer::Create(device_, bytes));
    return std::make_unique<GpuMemory>(std::move(buffer));
  }

 private:
  const int device_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NcclDevice>> OpenGpu(int device) {
  REPRISE_RETURN_IF_ERROR(kernels::DescribeDevice(device).status());
  return std::make_unique<Gpu>(device);
}

}  // namespace reprise::lanes
