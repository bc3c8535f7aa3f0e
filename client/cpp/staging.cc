#include "client/cpp/staging.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {

StagingBuffer::StagingBuffer(StagingBuffer&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)),
      block_bytes_(other.block_bytes_),
      bytes_(other.bytes_) {}

StagingBuffer& StagingBuffer::operator=(StagingBuffer&& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(block_bytes_, other.block_bytes_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

StagingBuffer::~StagingBuffer() {
  if (owner_ != nullptr) owner_->Put(block_bytes_, bytes_.data());
}

Staging::Staging(size_t threads) : threads_(threads) {}

Staging::~Staging() {
  for (auto& [size, slab] : slabs_) munmap(slab->memory, slab->bytes);
}

absl::StatusOr<StagingBuffer> Staging::Get(uint64_t block_bytes, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  std::unique_ptr<Slab>& slab = slabs_[block_bytes];
  if (slab == nullptr) {
    auto fresh = std::make_unique<Slab>();
    if (absl::Status status = Allocate(block_bytes, *fresh); !status.ok()) {
      slabs_.erase(block_bytes);
      return status;
    }
    slab = std::move(fresh);
  }
  Slab* from = slab.get();
  if (!mu_.AwaitWithDeadline(absl::Condition(from, &Slab::HasFree), deadline)) {
    return absl::DeadlineExceededError("every staging buffer of this client is in use");
  }
  StagingBuffer buffer;
  buffer.owner_ = this;
  buffer.block_bytes_ = block_bytes;
  buffer.bytes_ = {from->free.back(), block_bytes};
  from->free.pop_back();
  return buffer;
}

absl::Status Staging::Allocate(uint64_t block_bytes, Slab& slab) {
  constexpr uint64_t kPageBytes = 4096;
  const uint64_t stride = (block_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uint64_t wanted =
      threads_                          // one block in each thread of the client
      + limits::kBlockingCallersStaged  // and in each thread that calls blocking forms
      ;
  const uint64_t buffers =
      std::max<uint64_t>(1, std::min(wanted, limits::kStagingBytesMax / stride));
  // Fresh pages cost ten times what used ones do: they are faulted in here, once.
  void* memory = mmap(nullptr, buffers * stride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    return Refusal(absl::StatusCode::kResourceExhausted, "STAGING_MEMORY",
                   absl::StrCat("no memory for ", buffers, " staging buffers of ", block_bytes,
                                " bytes: ", std::strerror(errno)));
  }
  slab.memory = static_cast<uint8_t*>(memory);
  slab.bytes = buffers * stride;
  for (uint64_t i = 0; i < buffers; ++i) slab.free.push_back(slab.memory + i * stride);
  return absl::OkStatus();
}

void Staging::Put(uint64_t block_bytes, uint8_t* buffer) {
  absl::MutexLock lock(&mu_);
  slabs_[block_bytes]->free.push_back(buffer);
}

uint64_t Staging::capacity_bytes() const {
  absl::MutexLock lock(&mu_);
  uint64_t bytes = 0;
  for (const auto& [size, slab] : slabs_) bytes += slab->bytes;
  return bytes;
}

}  // namespace reprise::client
