// A stored prefix under leases: what Acquire answers and Fetch reads from.
//
// Invariants: every block below blocks() that is not before first_block() was leased when the run
// was made; the leases end with the run, without waiting for anybody. Thread safety: all methods
// may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/link/shard_link.h"
#include "kernels/quantize/quant_format.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"

namespace reprise::client {

// A cache spec with what follows from it.
struct ClientSpec {
  CacheSpec spec;
  BlockLayout layout;                        // of a block in the caller's memory
  std::optional<kernels::QuantShape> codec;  // nullopt: stored as it is
  BlockLayout stored;                        // of a block at a shard
  Fingerprint fingerprint;

  const kernels::QuantShape* codec_or_null() const { return codec ? &*codec : nullptr; }
};

// Blocks [first, end) leased from one shard.
struct Segment {
  std::string address;
  std::shared_ptr<cluster::ShardLink> link;
  LeaseId lease;
  uint32_t first = 0;
  uint32_t end = 0;
  std::vector<Checksum128> checksums;  // of [first, end)
  std::vector<TierRun> tiers;          // of [first, end)

  Tier TierOf(uint32_t block) const;
};

struct RunOrigin {
  std::shared_ptr<const ClientSpec> spec;
  std::string session;
  std::vector<BlockKey> keys;
  uint32_t first_block = 0;
};

class Run {
 public:
  using Releaser = std::function<void(std::vector<Segment>)>;

  // `release` is given the segments when the run ends; it must not block.
  Run(RunOrigin origin, std::vector<Segment> segments, Releaser release);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // The stored prefix, counted from block 0.
  uint32_t blocks() const { return blocks_; }
  uint32_t first_block() const { return origin_.first_block; }
  const RunOrigin& origin() const { return origin_; }
  // In the order in which they were leased.
  std::vector<Segment> segments() const;
  // Everything is still attached: what was leased is readable.
  bool Intact() const;
  // Blocks that were leased after the run was made, in place of some whose shard failed.
  void Add(Segment segment);

 private:
  const RunOrigin origin_;
  uint32_t blocks_ = 0;
  Releaser release_;
  mutable absl::Mutex mu_;
  std::vector<Segment> segments_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::client
