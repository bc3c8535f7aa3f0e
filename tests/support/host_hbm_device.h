// Host memory in place of a device's: counts what is asked of it, and can be told to refuse, to
// corrupt, to be lost, and to be out of the CPU's reach as a device's memory is.
//
// Thread safety: as HbmDevice; HostHbmControl's fields may be set and read from any thread.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/checksum/checksum.h"
#include "proto/types/refusal.h"
#include "service/pool/hbm_device.h"

namespace reprise::testing {

// What a test and the device, which belongs to a pool, have in common.
struct HostHbmControl {
  // ---- Set by the test
  std::atomic<bool> guarded = false;   // when memory is allocated: the CPU that touches it dies
  std::atomic<bool> shares = true;     // IPC works
  std::atomic<bool> refuses = false;   // every copy and checksum is refused
  std::atomic<bool> pins = true;       // host memory can be pinned
  std::atomic<bool> corrupts = false;  // every copy gets one byte wrong
  std::atomic<bool> lost = false;      // all that is asked fails, as after an illegal access
  std::function<void()> before_copy;   // called by every copy; set while none runs
  // ---- Counted by the device
  std::atomic<uint64_t> copies = 0;
  std::atomic<uint64_t> copied_bytes = 0;
  std::atomic<uint64_t> checksums = 0;
  std::atomic<uint64_t> checksum_calls = 0;
  absl::Mutex mu;
  std::map<uint8_t*, uint64_t> pinned ABSL_GUARDED_BY(mu);  // host memory, by address
};

class HostHbmDevice final : public shard::HbmDevice {
 public:
  explicit HostHbmDevice(
      std::shared_ptr<HostHbmControl> control = std::make_shared<HostHbmControl>())
      : control_(std::move(control)) {}
  ~HostHbmDevice() override { EXPECT_TRUE(extents_.empty()) << "an extent was not given back"; }

  absl::StatusOr<uint8_t*> Allocate(uint64_t bytes) override {
    const int fd = ::memfd_create("host-hbm", MFD_CLOEXEC);
    if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
      return absl::ResourceExhaustedError("the fake device is out of memory");
    }
    Extent extent{.bytes = bytes, .memory = Map(fd, bytes, PROT_READ | PROT_WRITE)};
    // The same memory at an address where nobody may touch it.
    extent.address = control_->guarded ? Map(fd, bytes, PROT_NONE) : extent.memory;
    ::close(fd);
    absl::MutexLock lock(&mu_);
    extents_.emplace(extent.address, extent);
    return extent.address;
  }
  void Free(uint8_t* address) override {
    absl::MutexLock lock(&mu_);
    const auto it = extents_.find(address);
    ASSERT_NE(it, extents_.end());
    ::munmap(it->second.memory, it->second.bytes);
    if (it->second.address != it->second.memory) ::munmap(it->second.address, it->second.bytes);
    extents_.erase(it);
  }
  absl::Status Zero(uint8_t* address, uint64_t bytes) override {
    if (control_->lost) return Lost();
    std::memset(Reach(address), 0, bytes);
    return absl::OkStatus();
  }
  absl::Status Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) override {
    if (control_->refuses) return absl::InternalError("the fake device refuses to copy");
    if (control_->before_copy) control_->before_copy();
    if (control_->lost) return Lost();
    ++control_->copies;
    control_->copied_bytes += bytes;
    std::memcpy(Reach(to), Reach(from), bytes);
    if (control_->corrupts) Reach(to)[bytes / 2] ^= 1;
    return absl::OkStatus();
  }
  absl::Status Checksums(std::span<const uint8_t* const> blocks, const shard::BlockShape& shape,
                         std::span<Checksum128> checksums) override {
    if (control_->refuses) return absl::InternalError("the fake device refuses to compute");
    if (control_->lost) return Lost();
    ++control_->checksum_calls;
    control_->checksums += blocks.size();
    for (size_t i = 0; i < blocks.size(); ++i) {
      kernels::ChecksumBlock(Reach(blocks[i]), shape.block_bytes, shape.section_bytes,
                             checksums[i].bytes.data());
    }
    return absl::OkStatus();
  }
  absl::StatusOr<shard::PinnedMemory> Pin(uint8_t* memory, uint64_t bytes) override {
    if (!control_->pins) return absl::InternalError("the fake device refuses to pin");
    absl::MutexLock lock(&control_->mu);
    EXPECT_TRUE(control_->pinned.emplace(memory, bytes).second) << "pinned twice";
    return shard::PinnedMemory(memory, [control = control_](uint8_t* address) {
      absl::MutexLock unpin(&control->mu);
      EXPECT_EQ(control->pinned.erase(address), 1u);
    });
  }
  absl::StatusOr<shard::HbmHandle> Export(uint8_t* address) override {
    if (!control_->shares) return absl::UnavailableError("IPC is refused");
    if (control_->lost) return Lost();
    shard::HbmHandle handle;
    std::memcpy(handle.ipc.data(), &address, sizeof(address));
    return handle;
  }

 private:
  struct Extent {
    uint64_t bytes = 0;
    uint8_t* memory = nullptr;   // where the device itself works
    uint8_t* address = nullptr;  // what others know
  };

  static absl::Status Lost() {
    return Refusal(absl::StatusCode::kUnavailable, "GPU_LOST", "the fake device is lost");
  }

  static uint8_t* Map(int fd, uint64_t bytes, int protection) {
    return static_cast<uint8_t*>(::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0));
  }

  // The bytes at an address of this device or of the host.
  uint8_t* Reach(const uint8_t* address) const {
    absl::MutexLock lock(&mu_);
    auto it = extents_.upper_bound(const_cast<uint8_t*>(address));
    if (it != extents_.begin()) {
      const Extent& extent = (--it)->second;
      if (address < extent.address + extent.bytes)
        return extent.memory + (address - extent.address);
    }
    return const_cast<uint8_t*>(address);
  }

  const std::shared_ptr<HostHbmControl> control_;
  mutable absl::Mutex mu_;
  std::map<uint8_t*, Extent> extents_ ABSL_GUARDED_BY(mu_);  // by address
};

}  // namespace reprise::testing
