// Where copies of committed blocks are taken from. The shard process implements it over its own
// engine.
//
// Thread safety: ReplicationSource and StoredChains may be called from any thread; one SourceChain
// is used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/checksum128.h"
#include "proto/types/hints.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

// A committed chain that wants copies on its peers.
struct ReplicationJob {
  Tenant tenant;
  CacheSpec spec;
  std::string session_id;           // empty: the first key stands for the session
  std::vector<BlockKey> keys;       // the whole chain, from its first block
  std::vector<uint32_t> token_ids;  // empty: unknown; else block_tokens per key
  uint32_t first_new = 0;           // keys before it were stored earlier
  uint32_t replication =
      0;  // copies in the cluster, this shard's included; 0: the replicator's default
  std::vector<ChainClaim> claims;  // to be placed on each copy
};

// A leased run of one chain. Destroying it ends the lease.
class SourceChain {
 public:
  virtual ~SourceChain() = default;
  // Blocks [first, run_blocks) of the job's keys are leased, as asked of Open.
  virtual uint32_t run_blocks() const = 0;
  // The checksum that the client made for block `index` (index among the job's keys).
  // REQUIRES: first <= index < run_blocks().
  virtual const Checksum128& checksum(uint32_t index) const = 0;
  // The block's bytes, valid until the next call or the chain's end. NOT_FOUND when the lease is
  // over.
  virtual absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t index) = 0;
  // Block `index` where it lies in device memory: it stays there, as it is, while the pin lives,
  // also beyond the chain. nullopt when it lies in host memory.
  virtual std::optional<lanes::PinnedBytes> InDevice(uint32_t) { return std::nullopt; }
};

// What was stored here at one moment, as chains that are no other one's beginning: the one that was
// used last first.
class StoredChains {
 public:
  virtual ~StoredChains() = default;
  virtual size_t size() const = 0;
  // Of chain `i`. No other chain of the tenant and fingerprint has its last block.
  virtual const Tenant& tenant(size_t i) const = 0;
  virtual const Fingerprint& fingerprint(size_t i) const = 0;
  virtual const BlockKey& first(size_t i) const = 0;
  virtual const BlockKey& last(size_t i) const = 0;
  // All of it; nullopt: it is not stored any more.
  virtual std::optional<ReplicationJob> Job(size_t i) const = 0;
};

class ReplicationSource {
 public:
  virtual ~ReplicationSource() = default;
  // Leases the stored run of `job.keys` from block `first` on. NOT_FOUND when nothing of it is
  // stored any more.
  virtual absl::StatusOr<std::unique_ptr<SourceChain>> Open(const ReplicationJob& job,
                                                            uint32_t first) = 0;
  virtual std::unique_ptr<StoredChains> Chains() = 0;
};

}  // namespace reprise::cluster
