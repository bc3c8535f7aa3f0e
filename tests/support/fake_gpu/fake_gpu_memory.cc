#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "tests/support/fake_gpu/fake_gpu_state.h"

namespace reprise::testing {
namespace {

using namespace kernels;

constexpr char kMagic[8] = {'f', 'a', 'k', 'e', 'G', 'P', 'U', '1'};

// What a handle of the fake says: which file of which process the memory is.
struct Handle {
  char magic[8];
  int32_t process;
  int32_t fd;
  uint64_t inode;
  uint64_t bytes;
  int32_t machine_device;
  uint8_t unused[28];
};
static_assert(sizeof(Handle) == kGpuIpcHandleBytes);

std::string Hex(const void* memory) {
  char text[32];
  std::snprintf(text, sizeof(text), "%p", memory);
  return text;
}

uint64_t InodeOf(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? info.st_ino : 0;
}

// Whether the CPU may write at an address.
bool MayWrite(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    char access[5] = {};
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, access) == 3 &&
        begin <= address && address < end) {
      return access[1] == 'w';
    }
  }
  return false;
}

const char* NameOf(RangeKind kind) {
  switch (kind) {
    case RangeKind::kDevice:
      return "device memory";
    case RangeKind::kOpened:
      return "another process's memory";
    case RangeKind::kPinned:
      return "pinned memory";
    case RangeKind::kRegistered:
      return "registered memory";
  }
  return "?";
}

}  // namespace

const Range* FakeGpu::Find(const void* memory) const {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return nullptr;
  --it;
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

bool FakeGpu::IsDeviceMemory(const void* memory) const {
  std::lock_guard lock(mu_);
  const Range* range = Find(memory);
  return range != nullptr && range->device();
}

Range& FakeGpu::Owned(void* memory, RangeKind kind, const char* call) {
  const auto it = ranges_.find(reinterpret_cast<uintptr_t>(memory));
  if (it == ranges_.end() || it->second.kind != kind) {
    Misused(std::string(call) + " of " + Hex(memory) + ", which is not the start of any " +
            NameOf(kind) + ": freed twice, or never had");
  }
  return it->second;
}

// Any address as the CPU reaches it: device memory by its alias, all else as it is.
uint8_t* FakeGpu::Translate(const void* memory, uint64_t bytes, const char* what) {
  auto* address = static_cast<uint8_t*>(const_cast<void*>(memory));
  const Range* range = Find(memory);
  if (range != nullptr) {
    const uint64_t offset = static_cast<uint64_t>(address - range->base);
    if (bytes > range->bytes - offset) {
      Misused(std::string(what) + ": " + std::to_string(bytes) + " bytes at offset " +
              std::to_string(offset) + " leave a range of " + NameOf(range->kind) + " of " +
              std::to_string(range->bytes) + " bytes");
    }
    return range->alias + offset;
  }
  const auto next = ranges_.lower_bound(reinterpret_cast<uintptr_t>(memory));
  if (next != ranges_.end() && next->second.device() &&
      next->first - reinterpret_cast<uintptr_t>(memory) < bytes) {
    Misused(std::string(what) + ": a host range of " + std::to_string(bytes) + " bytes at " +
            Hex(memory) + " runs into device memory");
  }
  return address;
}

uint8_t* FakeGpu::Reach(const void* memory, uint64_t bytes, const char* what) {
  const Range* range = Find(memory);
  if (range == nullptr) {
    Misused(std::string(what) + ": a kernel reaches for " + Hex(memory) +
            ", which is neither device memory nor pinned");
  }
  if (range->device() && range->machine_device != kernel_device_ && !options_.peers) {
    Misused(std::string(what) + ": a kernel of GPU " + std::to_string(kernel_device_) +
            " reaches into GPU " + std::to_string(range->machine_device) + " without peer access");
  }
  return Translate(memory, bytes, what);
}

// Adds a range that lies in the file range.fd.
GpuCode FakeGpu::Map(Range range, void** memory) {
  const int access = PROT_READ | PROT_WRITE;
  void* base = ::mmap(nullptr, range.bytes, options_.touch_caught ? PROT_NONE : access, MAP_SHARED,
                      range.fd, 0);
  if (base == MAP_FAILED) return kGpuOutOfMemory;
  void* alias = base;
  if (options_.touch_caught) {
    alias = ::mmap(nullptr, range.bytes, access, MAP_SHARED, range.fd, 0);
    if (alias == MAP_FAILED) {
      ::munmap(base, range.bytes);
      return kGpuOutOfMemory;
    }
  }
  range.base = static_cast<uint8_t*>(base);
  range.alias = static_cast<uint8_t*>(alias);
  range.inode = InodeOf(range.fd);
  *memory = base;
  ranges_.emplace(reinterpret_cast<uintptr_t>(base), range);
  return kGpuOk;
}

void FakeGpu::Unmap(const Range& range) {
  const Range gone = range;
  ranges_.erase(reinterpret_cast<uintptr_t>(gone.base));
  if (gone.alias != gone.base) ::munmap(gone.alias, gone.bytes);
  ::munmap(gone.base, gone.bytes);
  if (gone.fd >= 0) ::close(gone.fd);
}

GpuCode FakeGpu::Malloc(void** memory, uint64_t bytes) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  if (bytes == 0) return kGpuInvalidValue;
  const int device = options_.first + CurrentDevice();
  uint64_t used = 0;
  for (const auto& [address, range] : ranges_) {
    if (range.kind == RangeKind::kDevice && range.machine_device == device) used += range.bytes;
  }
  if (bytes > options_.memory_bytes || used > options_.memory_bytes - bytes) {
    return kGpuOutOfMemory;
  }
  const int fd = ::memfd_create("reprise-fake-gpu", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    if (fd >= 0) ::close(fd);
    return kGpuOutOfMemory;
  }
  const GpuCode code =
      Map({.kind = RangeKind::kDevice, .bytes = bytes, .machine_device = device, .fd = fd}, memory);
  if (code != kGpuOk) {
    ::close(fd);
    return code;
  }
  std::memset(Find(*memory)->alias, kFakeGpuPoison, bytes);
  return kGpuOk;
}

GpuCode FakeGpu::Free(void* memory) {
  if (memory == nullptr) return Health();
  std::lock_guard lock(mu_);
  Owned(memory, RangeKind::kDevice, "cudaFree");
  DrainAll();
  Unmap(Owned(memory, RangeKind::kDevice, "cudaFree"));
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::HostAlloc(void** memory, uint64_t bytes) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  if (bytes == 0) return kGpuInvalidValue;
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return kGpuOutOfMemory;
  auto* bytes_at = static_cast<uint8_t*>(base);
  ranges_.emplace(
      reinterpret_cast<uintptr_t>(base),
      Range{.kind = RangeKind::kPinned, .base = bytes_at, .alias = bytes_at, .bytes = bytes});
  *memory = base;
  return kGpuOk;
}

GpuCode FakeGpu::HostFree(void* memory) {
  if (memory == nullptr) return Health();
  std::lock_guard lock(mu_);
  Owned(memory, RangeKind::kPinned, "cudaFreeHost");
  DrainAll();
  Unmap(Owned(memory, RangeKind::kPinned, "cudaFreeHost"));
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::HostRegister(void* memory, uint64_t bytes, bool read_only) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  if (memory == nullptr || bytes == 0) return kGpuInvalidValue;
  if (!read_only && !MayWrite(memory)) return kGpuInvalidValue;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const auto next = ranges_.lower_bound(begin);
  const bool runs_into = next != ranges_.end() && next->first - begin < bytes;
  if (runs_into || Find(memory) != nullptr) return kFakeGpuPinnedAlready;
  auto* base = static_cast<uint8_t*>(memory);
  ranges_.emplace(
      begin, Range{.kind = RangeKind::kRegistered, .base = base, .alias = base, .bytes = bytes});
  return kGpuOk;
}

GpuCode FakeGpu::HostUnregister(void* memory) {
  std::lock_guard lock(mu_);
  Owned(memory, RangeKind::kRegistered, "cudaHostUnregister");
  DrainAll();
  ranges_.erase(reinterpret_cast<uintptr_t>(memory));
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::Export(void* memory, uint8_t handle[kGpuIpcHandleBytes]) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (!options_.ipc) return kFakeGpuIpcRefused;
  const Range* range = Find(memory);
  if (range == nullptr || range->kind != RangeKind::kDevice) return kGpuInvalidValue;
  Handle exported{};
  std::memcpy(exported.magic, kMagic, sizeof(kMagic));
  exported.process = ::getpid();
  exported.fd = range->fd;
  exported.inode = range->inode;
  exported.bytes = range->bytes;
  exported.machine_device = range->machine_device;
  std::memcpy(handle, &exported, sizeof(exported));
  ++counts_.exports;
  return kGpuOk;
}

GpuCode FakeGpu::Open(const uint8_t handle[kGpuIpcHandleBytes], void** memory) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  if (!options_.ipc) return kFakeGpuIpcRefused;
  Handle opened{};
  std::memcpy(&opened, handle, sizeof(opened));
  if (std::memcmp(opened.magic, kMagic, sizeof(kMagic)) != 0) return kGpuInvalidValue;
  if (opened.process == ::getpid()) return kFakeGpuOwnHandle;
  if (opened.machine_device != options_.first + CurrentDevice() && !options_.peers) {
    return kFakeGpuNoPeerAccess;
  }
  for (auto& [address, range] : ranges_) {
    if (range.kind != RangeKind::kOpened || range.inode != opened.inode) continue;
    ++range.openings;
    *memory = range.base;
    return kGpuOk;
  }
  const std::string path =
      "/proc/" + std::to_string(opened.process) + "/fd/" + std::to_string(opened.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return kFakeGpuInvalidHandle;
  GpuCode code = kFakeGpuInvalidHandle;
  if (InodeOf(fd) == opened.inode) {
    code = Map({.kind = RangeKind::kOpened,
                .bytes = opened.bytes,
                .machine_device = opened.machine_device,
                .fd = fd,
                .openings = 1},
               memory);
  }
  if (code != kGpuOk) ::close(fd);
  return code;
}

GpuCode FakeGpu::Close(void* memory) {
  std::lock_guard lock(mu_);
  Range& range = Owned(memory, RangeKind::kOpened, "cudaIpcCloseMemHandle");
  DrainAll();
  if (--range.openings == 0) Unmap(range);
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

}  // namespace reprise::testing
