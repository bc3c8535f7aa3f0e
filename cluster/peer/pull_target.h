// Where blocks go that are pulled from a peer. The shard process implements it over its own engine.
//
// Thread safety: PullTarget may be called from any thread; one ChainSlots is used by one thread at
// a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "cluster/peer/replication_source.h"
#include "proto/types/checksum128.h"

namespace reprise::cluster {

// Room for blocks [first, end) of a chain. Destroying it gives back what was not committed.
class ChainSlots {
 public:
  virtual ~ChainSlots() = default;
  virtual uint32_t first() const = 0;
  virtual uint32_t end() const = 0;
  virtual uint64_t block_bytes() const = 0;
  // Takes the bytes of the blocks: its block 0 is `first`.
  virtual lanes::BlockSink& sink() = 0;
  // How many of them came, from `first` on.
  virtual uint32_t filled() const = 0;
  // Makes all that came findable, one checksum for each. DATA_LOSS when one does not match.
  virtual absl::Status Commit(std::span<const Checksum128> checksums) = 0;
};

class PullTarget {
 public:
  virtual ~PullTarget() = default;
  // How many of the job's blocks are stored here, from the first on.
  virtual absl::StatusOr<uint32_t> Stored(const ReplicationJob& job) = 0;
  // Room for what is missing of the job's keys, for less where memory is short or others are
  // writing some of it: then `first` may be `end`. RESOURCE_EXHAUSTED when there is none.
  virtual absl::StatusOr<std::unique_ptr<ChainSlots>> Reserve(const ReplicationJob& job) = 0;
};

}  // namespace reprise::cluster
