#include "tests/support/memory_lane_host.h"

#include <cstring>
#include <utility>

namespace reprise::testing {
namespace {

uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

void FillPattern(uint64_t seed, uint32_t index, std::span<uint8_t> block) {
  uint64_t state = Mix(seed * 0x10001 + index);
  for (size_t i = 0; i < block.size(); i += sizeof(state)) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::memcpy(block.data() + i, &state, std::min(sizeof(state), block.size() - i));
  }
}

std::vector<uint8_t> PatternBlock(uint64_t seed, uint32_t index, uint64_t block_bytes) {
  std::vector<uint8_t> block(block_bytes);
  FillPattern(seed, index, block);
  return block;
}

// Outlives the host, since a lane may let go of its last pin after it.
struct MemoryLaneHost::PinCount {
  absl::Mutex mu;
  uint64_t held ABSL_GUARDED_BY(mu) = 0;
};

MemoryLaneHost::MemoryLaneHost(AttachmentId attachment, SlotAllocator allocate, CopyBytes copy)
    : attachment_(attachment),
      allocate_(std::move(allocate)),
      copy_(std::move(copy)),
      pins_(std::make_shared<PinCount>()) {}

MemoryLaneHost::~MemoryLaneHost() {
  Unstall();
}

uint64_t MemoryLaneHost::PinsHeld() const {
  absl::MutexLock lock(&pins_->mu);
  return pins_->held;
}

std::shared_ptr<const void> MemoryLaneHost::NewPin() {
  {
    absl::MutexLock lock(&pins_->mu);
    ++pins_->held;
  }
  static const char kAnything = 0;
  return std::shared_ptr<const void>(&kAnything, [pins = pins_](const void*) {
    absl::MutexLock lock(&pins->mu);
    --pins->held;
  });
}

HostSlot MemoryLaneHost::NewSlot(uint64_t bytes) {
  if (allocate_) return allocate_(bytes);
  heap_.push_back(std::make_unique<uint8_t[]>(bytes));
  return HostSlot({heap_.back().get(), bytes});
}

void MemoryLaneHost::WaitWhileStalled() {
  mu_.Await(absl::Condition(
      +[](bool* stalled) { return !*stalled; }, &stalled_));
}

absl::StatusOr<std::vector<lanes::PinnedBytes>> MemoryLaneHost::OpenRead(AttachmentId attachment,
                                                                         LeaseId lease,
                                                                         uint32_t first,
                                                                         uint32_t blocks) {
  absl::MutexLock lock(&mu_);
  WaitWhileStalled();
  const auto it = leases_.find(lease.value);
  if (attachment != attachment_ || it == leases_.end())
    return absl::NotFoundError("the lease is over");
  const Leased& leased = it->second;
  if (blocks == 0 && first <= leased.first + leased.slots.size()) {
    blocks = leased.first + static_cast<uint32_t>(leased.slots.size()) - first;
  }
  if (first < leased.first || uint64_t{first} + blocks > leased.first + leased.slots.size()) {
    return absl::OutOfRangeError("a block is not leased");
  }
  std::vector<lanes::PinnedBytes> opened;
  for (uint32_t i = 0; i < blocks; ++i) {
    const HostSlot& slot = leased.slots[first - leased.first + i];
    opened.push_back({slot.bytes, NewPin(), slot.memory});
  }
  return opened;
}

absl::StatusOr<lanes::PinnedSlot> MemoryLaneHost::OpenWrite(AttachmentId attachment,
                                                            ReservationId reservation,
                                                            uint32_t block) {
  absl::MutexLock lock(&mu_);
  WaitWhileStalled();
  const auto it = reservations_.find(reservation.value);
  if (attachment != attachment_ || it == reservations_.end()) {
    return absl::NotFoundError("the reservation is over");
  }
  if (block >= it->second.slots.size() || it->second.refused[block]) {
    return absl::FailedPreconditionError("no slot was granted for the block");
  }
  const HostSlot& slot = it->second.slots[block];
  return lanes::PinnedSlot{slot.bytes, NewPin(), slot.memory};
}

absl::Status MemoryLaneHost::Written(AttachmentId attachment, ReservationId reservation,
                                     uint32_t block, uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  WaitWhileStalled();
  const auto it = reservations_.find(reservation.value);
  if (attachment != attachment_ || it == reservations_.end()) {
    return absl::NotFoundError("the reservation is over");
  }
  if (block >= it->second.slots.size() || bytes > it->second.slots[block].bytes.size()) {
    return absl::OutOfRangeError("no such bytes");
  }
  it->second.written[block] = std::max(it->second.written[block], bytes);
  return absl::OkStatus();
}

LeaseId MemoryLaneHost::Lease(const LeaseShape& shape) {
  absl::MutexLock lock(&mu_);
  Leased leased{shape.first_block, {}};
  for (uint32_t i = 0; i < shape.blocks; ++i) {
    leased.slots.push_back(NewSlot(shape.block_bytes));
    const std::span<uint8_t> slot = leased.slots.back().bytes;
    if (leased.slots.back().memory == lanes::MemoryKind::kHost) {
      FillPattern(shape.seed, shape.first_block + i, slot);
    } else {
      const auto block = PatternBlock(shape.seed, shape.first_block + i, shape.block_bytes);
      copy_(slot.data(), block.data(), block.size());
    }
  }
  const uint64_t id = next_id_++;
  leases_.emplace(id, std::move(leased));
  return LeaseId(id);
}

ReservationId MemoryLaneHost::Reserve(uint32_t blocks, uint64_t block_bytes) {
  absl::MutexLock lock(&mu_);
  Reserved reserved;
  for (uint32_t i = 0; i < blocks; ++i) reserved.slots.push_back(NewSlot(block_bytes));
  reserved.written.resize(blocks);
  reserved.refused.resize(blocks);
  const uint64_t id = next_id_++;
  reservations_.emplace(id, std::move(reserved));
  return ReservationId(id);
}

LeaseId MemoryLaneHost::LeaseWritten(ReservationId reservation) {
  absl::MutexLock lock(&mu_);
  const uint64_t id = next_id_++;
  leases_.emplace(id, Leased{0, reservations_.at(reservation.value).slots});
  return LeaseId(id);
}

void MemoryLaneHost::EndLease(LeaseId lease) {
  absl::MutexLock lock(&mu_);
  leases_.erase(lease.value);
}

void MemoryLaneHost::EndReservation(ReservationId reservation) {
  absl::MutexLock lock(&mu_);
  reservations_.erase(reservation.value);
}

void MemoryLaneHost::RefuseWrites(ReservationId reservation, uint32_t block) {
  absl::MutexLock lock(&mu_);
  reservations_.at(reservation.value).refused.at(block) = true;
}

uint64_t MemoryLaneHost::BytesWritten(ReservationId reservation, uint32_t block) {
  absl::MutexLock lock(&mu_);
  return reservations_.at(reservation.value).written.at(block);
}

void MemoryLaneHost::Stall() {
  absl::MutexLock lock(&mu_);
  stalled_ = true;
}

void MemoryLaneHost::Unstall() {
  absl::MutexLock lock(&mu_);
  stalled_ = false;
}

bool MemoryLaneHost::AwaitNoPins(absl::Duration timeout) {
  absl::MutexLock lock(&pins_->mu);
  return pins_->mu.AwaitWithTimeout(absl::Condition(
                                        +[](uint64_t* held) { return *held == 0; }, &pins_->held),
                                    timeout);
}

}  // namespace reprise::testing
