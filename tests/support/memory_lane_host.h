// A shard's end of a lane for tests: leases and reservations over plain memory, told what to do
// through LaneHostControl, which a test also drives when the host is in another process.
//
// Invariants: a block's bytes are a function of (seed, index), so that both sides know them without
// sending them; slots are never reused, so that a late reader or writer shows. Thread safety: all
// methods may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/lane.h"

namespace reprise::testing {

// Fills `block` with the bytes of block `index` under `seed`.
void FillPattern(uint64_t seed, uint32_t index, std::span<uint8_t> block);
std::vector<uint8_t> PatternBlock(uint64_t seed, uint32_t index, uint64_t block_bytes);

struct LeaseShape {
  uint64_t seed = 1;
  uint32_t first_block = 0;
  uint32_t blocks = 1;
  uint64_t block_bytes = 4096;
};

class LaneHostControl {
 public:
  virtual ~LaneHostControl() = default;
  // Leases [first_block, first_block + blocks), filled with the pattern.
  virtual LeaseId Lease(const LeaseShape& shape) = 0;
  virtual ReservationId Reserve(uint32_t blocks, uint64_t block_bytes) = 0;
  // Leases what was written under a reservation, which goes on.
  virtual LeaseId LeaseWritten(ReservationId reservation) = 0;
  virtual void EndLease(LeaseId lease) = 0;
  virtual void EndReservation(ReservationId reservation) = 0;
  // From now on OpenWrite of this block is FAILED_PRECONDITION.
  virtual void RefuseWrites(ReservationId reservation, uint32_t block) = 0;
  // The largest byte count told by Written.
  virtual uint64_t BytesWritten(ReservationId reservation, uint32_t block) = 0;
  // Every call of the lane blocks from now on, until Unstall.
  virtual void Stall() = 0;
  virtual void Unstall() = 0;
  // Waits until no pin lives; false when some still do after `timeout`.
  virtual bool AwaitNoPins(absl::Duration timeout) = 0;
};

// Copies between any two of host and device memory, and waits.
using CopyBytes = std::function<void(uint8_t* to, const uint8_t* from, uint64_t bytes)>;

// A slot's memory. It outlives the host.
struct HostSlot {
  HostSlot() = default;
  HostSlot(std::span<uint8_t> slot, lanes::MemoryKind kind = lanes::MemoryKind::kHost)
      : bytes(slot), memory(kind) {}
  std::span<uint8_t> bytes;
  lanes::MemoryKind memory = lanes::MemoryKind::kHost;
};

class MemoryLaneHost final : public lanes::LaneHost, public LaneHostControl {
 public:
  using SlotAllocator = std::function<HostSlot(uint64_t bytes)>;

  // `copy` reaches every slot that `allocate` gives; empty: slots are in host memory.
  explicit MemoryLaneHost(AttachmentId attachment, SlotAllocator allocate = nullptr,
                          CopyBytes copy = nullptr);
  ~MemoryLaneHost() override;

  AttachmentId attachment() const { return attachment_; }
  // The pins that live now.
  uint64_t PinsHeld() const;

  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override;
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override;
  absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                       uint64_t bytes) override;

  LeaseId Lease(const LeaseShape& shape) override;
  ReservationId Reserve(uint32_t blocks, uint64_t block_bytes) override;
  LeaseId LeaseWritten(ReservationId reservation) override;
  void EndLease(LeaseId lease) override;
  void EndReservation(ReservationId reservation) override;
  void RefuseWrites(ReservationId reservation, uint32_t block) override;
  uint64_t BytesWritten(ReservationId reservation, uint32_t block) override;
  void Stall() override;
  void Unstall() override;
  bool AwaitNoPins(absl::Duration timeout) override;

 private:
  struct Leased {
    uint32_t first = 0;
    std::vector<HostSlot> slots;
  };
  struct Reserved {
    std::vector<HostSlot> slots;
    std::vector<uint64_t> written;
    std::vector<bool> refused;
  };
  struct PinCount;

  HostSlot NewSlot(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::shared_ptr<const void> NewPin();
  void WaitWhileStalled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AttachmentId attachment_;
  const SlotAllocator allocate_;
  const CopyBytes copy_;
  const std::shared_ptr<PinCount> pins_;
  mutable absl::Mutex mu_;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, Leased> leases_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, Reserved> reservations_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<uint8_t[]>> heap_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::testing
