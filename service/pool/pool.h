// The pool contract: a tier's memory as slots. The accounting is here, once; what kind of memory it
// is (host, device, file) is the implementation's, behind the protected functions. Every
// implementation passes tests/conformance/pool/pool_conformance.h.
//
// Invariants:
//   - an extent holds blocks of one key space at a time, and its bytes are wiped before another one
//     gets it; when it was exported, it gets other memory instead, since its old owner may still
//     have the old one mapped;
//   - a slot's address does not change while the slot is in use;
//   - memory is touched once, at the start.
// Thread safety: all methods may be called from any thread. Copy and Checksums hold no lock: the
// caller keeps the slots in use and the bytes still.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/checksum128.h"
#include "proto/types/ids.h"
#include "service/pool/extent_place.h"
#include "service/pool/slot_allocator.h"

namespace reprise::shard {

struct BlockShape {
  uint64_t block_bytes = 0;
  uint64_t section_bytes = 0;  // of the checksum
};

class Pool {
 public:
  virtual ~Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  virtual Tier tier() const = 0;
  // Whether addresses are those of host memory. Bytes are reached through CopyToHost and
  // CopyFromHost alone where they are not.
  virtual bool cpu_reaches() const { return true; }
  // Whether another process can map its extents.
  virtual bool shareable() const { return true; }
  uint64_t capacity_bytes() const { return uint64_t{extents_} * extent_bytes_; }
  uint64_t extent_bytes() const { return extent_bytes_; }
  uint32_t extents() const { return extents_; }

  // Whether its memory is out of reach for good, its device being lost.
  virtual bool lost() const { return false; }

  // Whether one block of `block_bytes` fits an extent at all, and the memory is not lost.
  bool Fits(uint64_t block_bytes) const {
    return !lost() && SlotAllocator::SlotBytes(block_bytes) <= extent_bytes_;
  }

  // A slot for a block of `space`; nullopt when its extents are full and no other one is unowned.
  // REQUIRES: Fits(block_bytes), one block size per key space.
  std::optional<SlotRef> Allocate(KeySpaceId space, uint64_t block_bytes);
  // Takes one given slot for a block of `space`, as if Allocate had given it, with the bytes that
  // are there: those that an earlier process left of `space`. False, and nothing taken, when it
  // cannot be had: no such slot, in use, in an extent that is or was another key space's, of
  // another size than the blocks of `space` have, or the memory is lost.
  // REQUIRES: `space` is not kEarlierProcess.
  bool Take(KeySpaceId space, uint64_t block_bytes, SlotRef slot);
  // REQUIRES: `slot` is in use.
  void Free(SlotRef slot);
  // A draining extent gives out no more slots, until it is empty or told to stop.
  void SetDraining(uint32_t extent, bool draining);

  // First byte of a slot in use: a host or a device address.
  uint8_t* Address(SlotRef slot) const;
  // Copies a block between two slots in use. INTERNAL when the device refuses, or the disk.
  absl::Status Copy(SlotRef from, SlotRef to, uint64_t bytes);
  // Bytes of slots in use to host memory, and back. INTERNAL when the device refuses.
  // REQUIRES: Holds the pool's side.
  absl::Status CopyToHost(const uint8_t* from, std::span<uint8_t> to);
  absl::Status CopyFromHost(std::span<const uint8_t> from, uint8_t* to);
  // Whether `address` lies in this pool's memory.
  bool Holds(const uint8_t* address) const;
  // The block checksums of slots in use (kernels/checksum/checksum.h), one each. INTERNAL when the
  // device refuses.
  absl::StatusOr<std::vector<Checksum128>> Checksums(std::span<const SlotRef> slots,
                                                     const BlockShape& shape) const;

  // Until all bytes that were written are where they outlive the machine's next failure, where this
  // memory has such a place. INTERNAL when that was refused, and the memory is lost.
  virtual absl::Status Sync() { return absl::OkStatus(); }

  // Where `address` lies, and from now on its extent counts as exported to its owner; nullopt when
  // it is not in a slot's extent of this pool, or the pool is not shareable. REQUIRES: the slot at
  // `address` stays in use while the answer is used.
  std::optional<ExtentPlace> Export(const uint8_t* address);

  // What a process on this machine needs to map an extent in device memory, which `attachment` then
  // has until Unshared. UNAVAILABLE or INTERNAL where the driver refuses; UNAVAILABLE of other
  // memory. REQUIRES: Export has a place in it, and the slot there stays in use meanwhile.
  virtual absl::StatusOr<HbmHandle> Share(uint32_t extent, AttachmentId attachment);
  // The attachment is over, and its process has unmapped what it had or never looks at it again.
  virtual void Unshared(AttachmentId) {}

  SpaceUse Use(KeySpaceId space) const;
  std::vector<uint32_t> ExtentsOf(KeySpaceId space) const;
  uint32_t used_slots(uint32_t extent) const;
  uint32_t unowned_extents() const;
  // Those of them that Allocate would give to `space`.
  uint32_t ExtentsOpenTo(KeySpaceId space) const;
  // Whether an extent could go to another key space, were it empty. What emptying it costs is spent
  // for nothing where it cannot.
  virtual bool Transferable(uint32_t) const { return true; }
  uint64_t used_bytes() const;  // of slots in use
  double pressure() const;      // 0: all free, 1: no slot free anywhere

  // INTERNAL naming the first thing that a recount finds wrong; so also when the slots in use are
  // not `in_use`.
  absl::Status CheckInvariants(const absl::flat_hash_set<SlotRef>& in_use) const;

 protected:
  // `previous_owner`: of all extents, whose bytes are still there; none: they are all zeroes.
  Pool(uint32_t extents, uint64_t extent_bytes, KeySpaceId previous_owner = KeySpaceId());

  // ---- What an implementation says of its memory
  // The same address for as long as the pool lives.
  virtual uint8_t* ExtentAddress(uint32_t extent) const = 0;
  virtual int ExtentFd(uint32_t extent) const = 0;
  // Overwrites the extent with zeroes. No slot of it is in use.
  virtual absl::Status Wipe(uint32_t extent) = 0;
  // Puts other memory, all zeroes, at the same address. No slot of it is in use.
  virtual absl::Status Renew(uint32_t extent) = 0;
  // Within the pool, or between it and host memory.
  virtual absl::Status CopyBytes(const uint8_t* from, uint8_t* to, uint64_t bytes) = 0;
  // One checksum per block.
  virtual absl::Status ChecksumBytes(std::span<const uint8_t* const> blocks,
                                     const BlockShape& shape,
                                     std::span<Checksum128> checksums) const = 0;

 private:
  absl::Status Prepare(uint32_t extent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint32_t extents_;
  const uint64_t extent_bytes_;
  mutable absl::Mutex mu_;
  SlotAllocator slots_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> extent_ids_ ABSL_GUARDED_BY(mu_);
  std::vector<uint8_t> exported_ ABSL_GUARDED_BY(mu_);
  uint64_t next_extent_id_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace reprise::shard
