// Chains of blocks whose content follows from their keys, stored and fetched over a link.
//
// Thread safety: one thread per link and object.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "cluster/lanes/lane.h"
#include "cluster/link/shard_link.h"
#include "proto/types/cache_spec.h"
#include "proto/types/status_macros.h"
#include "tests/support/block_content.h"

namespace reprise::testing {

// Far enough that only a hang reaches it.
inline absl::Time Soon() {
  return absl::Now() + absl::Seconds(30);
}

// A spec whose blocks have about `block_bytes`.
inline CacheSpec SpecOf(uint64_t block_bytes, std::string model = "test-model") {
  CacheSpec spec;
  spec.model = std::move(model);
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kF16;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.block_tokens = 4;
  spec.head_dim = static_cast<uint32_t>(block_bytes / (2 * 2 * 2 * 4 * 2));
  return spec;
}

// The content that belongs to each key. `before` is called before block i is given.
class ContentSource final : public lanes::BlockSource {
 public:
  ContentSource(std::vector<BlockKey> keys, uint64_t block_bytes,
                std::function<void(uint32_t)> before = nullptr)
      : keys_(std::move(keys)), before_(std::move(before)), block_(block_bytes) {}
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    REPRISE_RETURN_IF_ERROR(Fill(i, block_));
    return std::span<const uint8_t>(block_);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    if (before_) before_(i);
    FillContent(keys_.at(i), 0, slot);
    return absl::OkStatus();
  }

 private:
  const std::vector<BlockKey> keys_;
  const std::function<void(uint32_t)> before_;
  std::vector<uint8_t> block_;
};

// Compares what arrives with the content that belongs to each key. `after` is called after block i
// was taken.
class ContentSink final : public lanes::BlockSink {
 public:
  ContentSink(std::vector<BlockKey> keys, uint64_t block_bytes,
              std::function<void(uint32_t)> after = nullptr)
      : keys_(std::move(keys)), after_(std::move(after)), block_(block_bytes) {}
  std::span<uint8_t> Buffer(uint32_t) override { return block_; }
  absl::Status Complete(uint32_t i) override { return Deliver(i, block_); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    if (i != completed || !HasContent(keys_.at(i), 0, bytes)) ++wrong;
    ++completed;
    if (after_) after_(i);
    return absl::OkStatus();
  }

  uint32_t completed = 0;
  uint32_t wrong = 0;  // blocks out of order, or with other bytes than were written

 private:
  const std::vector<BlockKey> keys_;
  const std::function<void(uint32_t)> after_;
  std::vector<uint8_t> block_;
};

inline std::vector<Checksum128> ChecksumsOf(std::span<const BlockKey> keys, const CacheSpec& spec) {
  const BlockLayout layout = LayoutOf(spec);
  std::vector<uint8_t> block(layout.block_bytes);
  std::vector<Checksum128> checksums;
  for (const BlockKey& key : keys) {
    FillContent(key, 0, block);
    checksums.push_back(ChecksumOf(block, layout.layer_bytes));
  }
  return checksums;
}

// Reserves, writes and commits the chain's content. The blocks committed.
inline absl::StatusOr<uint32_t> StoreChain(cluster::ShardLink& link, const CacheSpec& spec,
                                           std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link.OpenSpec(spec, Soon()));
  REPRISE_ASSIGN_OR_RETURN(const cluster::ReservedRun reserved,
                           link.Reserve({.spec = opened.handle, .keys = keys}, Soon()));
  std::vector<uint32_t> granted;
  std::vector<BlockKey> granted_keys;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    if (reserved.outcomes[i] != ReserveOutcome::kGranted) continue;
    granted.push_back(i);
    granted_keys.push_back(keys[i]);
  }
  if (granted.empty()) return 0;
  ContentSource source(granted_keys, opened.block_bytes);
  REPRISE_RETURN_IF_ERROR(
      link.lane().Write({reserved.reservation, granted, opened.block_bytes}, source, Soon()));
  REPRISE_ASSIGN_OR_RETURN(
      const cluster::CommittedRun committed,
      link.Commit(reserved.reservation, granted, ChecksumsOf(granted_keys, spec), Soon()));
  return committed.committed;
}

// Leases and reads the stored prefix; the blocks that came. DATA_LOSS when one has other bytes than
// were written.
inline absl::StatusOr<uint32_t> FetchChain(cluster::ShardLink& link, const CacheSpec& spec,
                                           std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link.OpenSpec(spec, Soon()));
  REPRISE_ASSIGN_OR_RETURN(const cluster::AcquiredRun run,
                           link.Acquire(opened.handle, keys, 0, Soon()));
  if (!run.lease) return 0;
  ContentSink sink({keys.begin(), keys.end()}, opened.block_bytes);
  const absl::Status read =
      link.lane().Read({run.lease, 0, run.run_blocks, opened.block_bytes}, sink, Soon());
  if (sink.wrong > 0) return absl::DataLossError("a block has other bytes than were written");
  REPRISE_RETURN_IF_ERROR(link.Release(run.lease, Soon()));
  REPRISE_RETURN_IF_ERROR(read);
  return sink.completed;
}

}  // namespace reprise::testing
