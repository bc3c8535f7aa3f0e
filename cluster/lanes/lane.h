// The contract between whoever moves block bytes and whoever has them. Names no backend.
//
// A lane has two ends. The shard's end is a LaneHost: it opens leased blocks for reading and
// reserved slots for writing. The other end is a Lane, made for one attachment to one shard: it
// carries bytes between the shard's slots and the caller's BlockSink or BlockSource.
//
// Deadlines are points of absl::Now(), like everywhere on the caller's side of the wire; a lane
// turns them into monotonic timeouts on entry, so that a wall clock that jumps during a call
// changes nothing.
//
// What every lane promises (tests/conformance/lanes/lane_conformance.h):
//   - a block is delivered whole, or the call fails; blocks come in ascending order;
//   - after an error at block i every block before i was completed and none after it;
//   - every call returns by its deadline, and no memory of the caller's is touched after it
//     returned;
//   - bytes written under a reservation are invisible to readers until Commit, which is not the
//     lane's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

// ---- The shard's end

// Where an address points. Device memory is never touched by the CPU: it is copied through the
// device. What is in a file has an address that nobody can touch, and no lane can hand it over as
// it lies: it is copied by its host (CopyToHost, CopyToDevice).
enum class MemoryKind : uint8_t { kHost = 0, kDevice = 1, kFile = 2 };

// Bytes of one slot and what keeps them in place: the slot is neither evicted nor reused while
// `pin` lives.
struct PinnedBytes {
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> pin;
  MemoryKind memory = MemoryKind::kHost;
};
struct PinnedSlot {
  std::span<uint8_t> bytes;
  std::shared_ptr<const void> pin;
  MemoryKind memory = MemoryKind::kHost;
};

// Thread safety: all methods may be called from any thread.
class LaneHost {
 public:
  virtual ~LaneHost() = default;

  // Opens `blocks` leased blocks from `first` on (indexes among the keys of Acquire; 0 blocks: all
  // that the lease has). NOT_FOUND when attachment or lease is over; OUT_OF_RANGE when a block is
  // not leased.
  virtual absl::StatusOr<std::vector<PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                            uint32_t first, uint32_t blocks) = 0;

  // So many of the blocks that OpenRead opened went out whole, over this lane: for whoever counts.
  virtual void ReadOut(uint64_t /*blocks*/, uint64_t /*bytes*/) {}

  // Opens the slot reserved for block `block` (index among the keys of Reserve). NOT_FOUND when
  // attachment or reservation is over; FAILED_PRECONDITION when no slot was granted for it or it is
  // committed already.
  virtual absl::StatusOr<PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                               uint32_t block) = 0;

  // The first `bytes` bytes of the block were filled, from offset 0 on without a gap. Commit asks
  // for all of them.
  virtual absl::Status Written(AttachmentId attachment, ReservationId reservation, uint32_t block,
                               uint64_t bytes) = 0;

  // Between host memory and an open slot in device memory or in a file, into one in device memory
  // also from other memory of its device; both spans have one size. INTERNAL when the device
  // refuses, and from a host that has no such memory.
  virtual absl::Status CopyToHost(std::span<const uint8_t> device, std::span<uint8_t> host);
  virtual absl::Status CopyToDevice(std::span<const uint8_t> from, std::span<uint8_t> device);
};

// ---- The caller's end

// Where a lane delivers blocks. `i` counts from 0 within one Read call. Called from one thread at a
// time. Every sink takes host bytes; a sink in device memory takes device bytes too.
class BlockSink {
 public:
  virtual ~BlockSink() = default;
  // Where the blocks end up. kHost: the sink is never handed device memory, and a lane that has
  // nothing else copies into Buffer.
  virtual MemoryKind memory() const { return MemoryKind::kHost; }
  // Of a sink in device memory: which of this process's GPUs it is on, and so which one has to
  // reach the blocks that it is handed.
  virtual int device() const { return 0; }
  // The next blocks come by this kind of lane. Told by a lane that is several, before the blocks.
  virtual void CarriedBy(LaneKind kind) { carried_by_ = kind; }
  // What was told last; nullopt: the lane that was asked carries them.
  std::optional<LaneKind> carried_by() const { return carried_by_; }
  // Host memory for the whole of block i, which the lane fills before it calls Complete(i). Stays
  // valid until then.
  virtual std::span<uint8_t> Buffer(uint32_t i) = 0;
  // Buffer(i) holds the block. An error (a failed checksum, say) ends the read with that status.
  virtual absl::Status Complete(uint32_t i) = 0;
  // The block's bytes where the lane has them mapped in host memory: used instead of Buffer and
  // Complete, without a copy. `bytes` stays valid during the call only.
  virtual absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) = 0;
  // Blocks [first, first + blocks.size()) in device memory, which are still when this is called and
  // stay valid during the call only. One call for as many as the lane has, so that a device moves
  // them in one launch. REQUIRES: memory() is kDevice. An error says that some block failed; those
  // before it are completed.
  virtual absl::Status DeliverDevice(uint32_t first,
                                     std::span<const std::span<const uint8_t>> blocks);
  // The same of blocks in host memory that is pinned for the sink's device. REQUIRES: memory() is
  // kDevice. Delivers them one by one, unless the sink knows better.
  virtual absl::Status DeliverPinned(uint32_t first,
                                     std::span<const std::span<const uint8_t>> blocks);

 private:
  std::optional<LaneKind> carried_by_;
};

// Where a lane takes blocks from. `i` counts from 0 within one Write call. Called from one thread
// at a time. Every source fills host memory; a source in device memory fills device memory too.
class BlockSource {
 public:
  virtual ~BlockSource() = default;
  // Where the blocks are. kHost: the source is never asked to fill device memory, and a lane that
  // has nothing else copies from Bytes.
  virtual MemoryKind memory() const { return MemoryKind::kHost; }
  // As BlockSink::device().
  virtual int device() const { return 0; }
  // The block's bytes in host memory, valid until the next call on this source or the end of Write.
  virtual absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) = 0;
  // Puts block i into `slot`, host memory: used instead of Bytes where the lane has the slot
  // mapped.
  virtual absl::Status Fill(uint32_t i, std::span<uint8_t> slot) = 0;
  // Puts blocks [first, first + slots.size()) into slots in device memory; they are there when it
  // returns. REQUIRES: memory() is kDevice.
  virtual absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots);
  // The same of slots in host memory that is pinned for the source's device. Fills them one by one,
  // unless the source knows better.
  virtual absl::Status FillPinned(uint32_t first, std::span<const std::span<uint8_t>> slots);
  // Blocks from `first` on where they lie in device memory, as many of `blocks` as lie there one
  // after the other. They stay as they are while their pins live, also after Write returned: a
  // device may let go of them later. Empty: the source has none, and is asked to fill.
  virtual std::vector<PinnedBytes> Pinned(uint32_t first, uint32_t blocks);
};

struct ReadJob {
  LeaseId lease;
  uint32_t first = 0;   // index among the keys of Acquire
  uint32_t blocks = 0;  // at least 1
  uint64_t block_bytes = 0;
};

struct WriteJob {
  ReservationId reservation;
  std::vector<uint32_t> blocks;  // indexes among the keys of Reserve, ascending
  uint64_t block_bytes = 0;
};

// Thread safety: calls on one lane may run in parallel.
class Lane {
 public:
  virtual ~Lane() = default;
  virtual LaneKind kind() const = 0;
  // How many calls that run in parallel are faster than one that moves as much: connections that a
  // network, and a core at each end, carry side by side.
  virtual uint32_t flows() const { return 1; }
  // Whether a call ends with LANE_DOWN when nothing moved for limits::kLaneDeadlineShare of its
  // time.
  virtual bool notices_stalls() const { return false; }
  // DEADLINE_EXCEEDED, UNAVAILABLE (the shard is gone; reason LANE_DOWN: this lane alone is, see
  // lane_status.h), NOT_FOUND (the lease is over), INVALID_ARGUMENT (block_bytes is not the slots'
  // size), or the sink's own status.
  virtual absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) = 0;
  // DEADLINE_EXCEEDED, UNAVAILABLE, NOT_FOUND (the reservation is over), or the source's own
  // status.
  virtual absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) = 0;
};

}  // namespace reprise::lanes
