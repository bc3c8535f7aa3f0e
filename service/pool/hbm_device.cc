#include "service/pool/hbm_device.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/checksum/checksum_cuda.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_status.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

// One stream, on which the pool's own work runs one piece after another.
class GpuHbmDevice final : public HbmDevice {
 public:
  static absl::StatusOr<std::unique_ptr<HbmDevice>> Create(int device) {
    REPRISE_ASSIGN_OR_RETURN(const kernels::DeviceInfo info, kernels::DescribeDevice(device));
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device));
    REPRISE_ASSIGN_OR_RETURN(kernels::Stream stream, kernels::Stream::Create(device));
    // Of one launch of checksums: the digests, then the blocks' addresses.
    REPRISE_ASSIGN_OR_RETURN(
        kernels::PinnedBuffer mail,
        kernels::PinnedBuffer::Create(limits::kHbmChecksumBlocksMax *
                                      (kernels::kChecksumDigestBytes + sizeof(uint8_t*))));
    REPRISE_ASSIGN_OR_RETURN(kernels::DeviceBuffer scratch,
                             kernels::DeviceBuffer::Create(device, limits::kDeviceScratchBytes));
    return std::unique_ptr<HbmDevice>(
        new GpuHbmDevice(device, info, std::move(stream), std::move(mail), std::move(scratch)));
  }

  absl::StatusOr<uint8_t*> Allocate(uint64_t bytes) override {
    absl::MutexLock lock(&mu_);
    REPRISE_ASSIGN_OR_RETURN(kernels::DeviceBuffer buffer,
                             kernels::DeviceBuffer::Create(device_, bytes));
    uint8_t* const memory = buffer.data();
    REPRISE_RETURN_IF_ERROR(kernels::FillAsync(memory, 0, bytes, stream_.handle()));
    REPRISE_RETURN_IF_ERROR(stream_.Synchronize());
    buffers_.push_back(std::move(buffer));
    return memory;
  }

  void Free(uint8_t* memory) override {
    absl::MutexLock lock(&mu_);
    if (!kernels::UseDevice(device_).ok()) return;
    buffers_.erase(std::remove_if(buffers_.begin(), buffers_.end(),
                                  [memory](const auto& b) { return b.data() == memory; }),
                   buffers_.end());
  }

  absl::Status Zero(uint8_t* memory, uint64_t bytes) override {
    absl::MutexLock lock(&mu_);
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    REPRISE_RETURN_IF_ERROR(kernels::FillAsync(memory, 0, bytes, stream_.handle()));
    return stream_.Synchronize();
  }

  absl::Status Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) override {
    absl::MutexLock lock(&mu_);
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    REPRISE_RETURN_IF_ERROR(kernels::CopyAsync(to, from, bytes, stream_.handle()));
    return stream_.Synchronize();
  }

  absl::Status Checksums(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                         std::span<Checksum128> checksums) override {
    const uint64_t scratch_bytes =
        kernels::ChecksumScratchBytes(1, shape.block_bytes, shape.section_bytes);
    const size_t launch_max = std::clamp<size_t>(limits::kDeviceScratchBytes / scratch_bytes, 1,
                                                 limits::kHbmChecksumBlocksMax);
    absl::MutexLock lock(&mu_);
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    while (!blocks.empty()) {
      const size_t count = std::min(launch_max, blocks.size());
      REPRISE_RETURN_IF_ERROR(Launch(blocks.first(count), shape, checksums.first(count)));
      blocks = blocks.subspan(count);
      checksums = checksums.subspan(count);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PinnedMemory> Pin(uint8_t* memory, uint64_t bytes) override {
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    REPRISE_ASSIGN_OR_RETURN(auto pinned, kernels::PinnedRange::Create(memory, bytes));
    return std::make_shared<const kernels::PinnedRange>(std::move(pinned));
  }

  absl::StatusOr<HbmHandle> Export(uint8_t* memory) override {
    absl::MutexLock lock(&mu_);
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    for (const kernels::DeviceBuffer& buffer : buffers_) {
      if (buffer.data() != memory) continue;
      HbmHandle handle{.device_uuid = info_.uuid};
      REPRISE_ASSIGN_OR_RETURN(handle.ipc, buffer.Export());
      return handle;
    }
    return absl::InternalError("hbm: no such extent");
  }

 private:
  GpuHbmDevice(int device, kernels::DeviceInfo info, kernels::Stream stream,
               kernels::PinnedBuffer mail, kernels::DeviceBuffer scratch)
      : device_(device),
        info_(std::move(info)),
        stream_(std::move(stream)),
        mail_(std::move(mail)),
        scratch_(std::move(scratch)) {}

  // REQUIRES: the mail and the scratch have room for that many blocks.
  absl::Status Launch(std::span<const uint8_t* const> blocks, const BlockShape& shape,
                      std::span<Checksum128> checksums) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    static_assert(kernels::kChecksumDigestBytes == kChecksumBytes);
    uint8_t* const digests = mail_.data();
    auto* const table = reinterpret_cast<const uint8_t**>(
        digests + limits::kHbmChecksumBlocksMax * kernels::kChecksumDigestBytes);
    std::copy(blocks.begin(), blocks.end(), table);
    REPRISE_RETURN_IF_ERROR(kernels::GpuStatus(
        kernels::ChecksumBlocksOnGpu({.block_table = table,
                                      .block_count = static_cast<uint32_t>(blocks.size()),
                                      .block_bytes = shape.block_bytes,
                                      .section_bytes = shape.section_bytes,
                                      .aligned = true,
                                      .scratch = scratch_.data(),
                                      .digests = digests},
                                     stream_.handle()),
        absl::StrCat("checksumming ", blocks.size(), " blocks")));
    REPRISE_RETURN_IF_ERROR(stream_.Synchronize());
    for (size_t i = 0; i < blocks.size(); ++i) {
      std::memcpy(checksums[i].bytes.data(), digests + i * kChecksumBytes, kChecksumBytes);
    }
    return absl::OkStatus();
  }

  const int device_;
  const kernels::DeviceInfo info_;
  absl::Mutex mu_;
  kernels::Stream stream_ ABSL_GUARDED_BY(mu_);
  kernels::PinnedBuffer mail_ ABSL_GUARDED_BY(mu_);
  kernels::DeviceBuffer scratch_ ABSL_GUARDED_BY(mu_);
  std::vector<kernels::DeviceBuffer> buffers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<HbmDevice>> OpenHbmDevice(int device) {
  return GpuHbmDevice::Create(device);
}

}  // namespace reprise::shard
