#include "service/pool/hbm_device.h"

#include <algorithm>
#include <cstring>
#include <optional>
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
    // The block's address, then its digest.
    REPRISE_ASSIGN_OR_RETURN(kernels::PinnedBuffer mail,
                             kernels::PinnedBuffer::Create(2 * kernels::kChecksumDigestBytes));
    return std::unique_ptr<HbmDevice>(
        new GpuHbmDevice(device, info, std::move(stream), std::move(mail)));
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

  absl::StatusOr<Checksum128> Checksum(const uint8_t* block, const BlockShape& shape) override {
    static_assert(kernels::kChecksumDigestBytes == kChecksumBytes);
    absl::MutexLock lock(&mu_);
    REPRISE_RETURN_IF_ERROR(kernels::UseDevice(device_));
    const uint64_t needed =
        kernels::ChecksumScratchBytes(1, shape.block_bytes, shape.section_bytes);
    if (!scratch_.has_value() || scratch_->size_bytes() < needed) {
      scratch_.reset();
      REPRISE_ASSIGN_OR_RETURN(scratch_, kernels::DeviceBuffer::Create(device_, needed));
    }
    uint8_t* const digest = mail_.data() + kernels::kChecksumDigestBytes;
    std::memcpy(mail_.data(), &block, sizeof(block));
    REPRISE_RETURN_IF_ERROR(
        kernels::GpuStatus(kernels::ChecksumBlocksOnGpu(
                               {.block_table = reinterpret_cast<const uint8_t**>(mail_.data()),
                                .block_count = 1,
                                .block_bytes = shape.block_bytes,
                                .section_bytes = shape.section_bytes,
                                .aligned = true,
                                .scratch = scratch_->data(),
                                .digests = digest},
                               stream_.handle()),
                           "block checksum"));
    REPRISE_RETURN_IF_ERROR(stream_.Synchronize());
    Checksum128 checksum;
    std::memcpy(checksum.bytes.data(), digest, kChecksumBytes);
    return checksum;
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
               kernels::PinnedBuffer mail)
      : device_(device),
        info_(std::move(info)),
        stream_(std::move(stream)),
        mail_(std::move(mail)) {}

  const int device_;
  const kernels::DeviceInfo info_;
  absl::Mutex mu_;
  kernels::Stream stream_ ABSL_GUARDED_BY(mu_);
  kernels::PinnedBuffer mail_ ABSL_GUARDED_BY(mu_);
  std::optional<kernels::DeviceBuffer> scratch_ ABSL_GUARDED_BY(mu_);
  std::vector<kernels::DeviceBuffer> buffers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<HbmDevice>> OpenHbmDevice(int device) {
  return GpuHbmDevice::Create(device);
}

}  // namespace reprise::shard
