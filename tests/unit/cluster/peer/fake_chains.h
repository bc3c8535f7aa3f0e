// A source of chains and a target for them that live in the test, with content that follows from
// the keys.
//
// Thread safety: as the interfaces that they stand for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/peer/copy_chain.h"
#include "cluster/peer/pull_target.h"
#include "cluster/peer/replication_source.h"
#include "proto/types/refusal.h"
#include "tests/support/block_content.h"

namespace reprise::cluster {

inline constexpr uint64_t kFakeBlockBytes = 64;

inline Checksum128 FakeChecksum(const BlockKey& key) {
  Checksum128 checksum;
  std::copy_n(key.bytes.begin(), checksum.bytes.size(), checksum.bytes.begin());
  return checksum;
}

// Has the first `stored_blocks` blocks of every chain, and lists those that the test names.
class FakeSource final : public ReplicationSource {
 public:
  absl::StatusOr<std::unique_ptr<SourceChain>> Open(const ReplicationJob& job,
                                                    uint32_t first) override {
    absl::MutexLock lock(&mu_);
    ++opened_;
    const uint32_t run = std::min<uint32_t>(stored_blocks_, job.keys.size());
    if (run <= first) return Refusal(absl::StatusCode::kNotFound, kChainGone, "evicted");
    return std::make_unique<Run>(job.keys, run);
  }
  void KeepOnly(uint32_t blocks) {
    absl::MutexLock lock(&mu_);
    stored_blocks_ = blocks;
  }
  int opened() {
    absl::MutexLock lock(&mu_);
    return opened_;
  }
  std::unique_ptr<StoredChains> Chains() override {
    absl::MutexLock lock(&mu_);
    return std::make_unique<List>(listed_);
  }
  // The one that was used last first.
  void Lists(std::vector<ReplicationJob> jobs) {
    absl::MutexLock lock(&mu_);
    listed_ = std::move(jobs);
  }

 private:
  class List final : public StoredChains {
   public:
    explicit List(std::vector<ReplicationJob> jobs) : jobs_(std::move(jobs)) {
      for (const ReplicationJob& job : jobs_) fingerprints_.push_back(FingerprintOf(job.spec));
    }
    size_t size() const override { return jobs_.size(); }
    const Tenant& tenant(size_t i) const override { return jobs_[i].tenant; }
    const Fingerprint& fingerprint(size_t i) const override { return fingerprints_[i]; }
    const BlockKey& first(size_t i) const override { return jobs_[i].keys.front(); }
    const BlockKey& last(size_t i) const override { return jobs_[i].keys.back(); }
    std::optional<ReplicationJob> Job(size_t i) const override { return jobs_[i]; }

   private:
    const std::vector<ReplicationJob> jobs_;
    std::vector<Fingerprint> fingerprints_;
  };
  class Run final : public SourceChain {
   public:
    Run(std::vector<BlockKey> keys, uint32_t run) : keys_(std::move(keys)), run_(run) {
      for (const BlockKey& key : keys_) checksums_.push_back(FakeChecksum(key));
    }
    uint32_t run_blocks() const override { return run_; }
    const Checksum128& checksum(uint32_t index) const override { return checksums_.at(index); }
    absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t index) override {
      testing::FillContent(keys_.at(index), 0, block_);
      return std::span<const uint8_t>(block_);
    }

   private:
    const std::vector<BlockKey> keys_;
    const uint32_t run_;
    std::vector<Checksum128> checksums_;
    std::vector<uint8_t> block_ = std::vector<uint8_t>(kFakeBlockBytes);
  };
  absl::Mutex mu_;
  uint32_t stored_blocks_ ABSL_GUARDED_BY(mu_) = ~0u;
  int opened_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<ReplicationJob> listed_ ABSL_GUARDED_BY(mu_);
};

// A shard that pulls: has `stored`, and room for `room_blocks` more in one go.
class FakeTarget final : public PullTarget {
 public:
  absl::StatusOr<uint32_t> Stored(const ReplicationJob& job) override { return Run(job); }
  absl::StatusOr<std::unique_ptr<ChainSlots>> Reserve(const ReplicationJob& job) override {
    const uint32_t first = Run(job);
    const auto missing = static_cast<uint32_t>(job.keys.size()) - first;
    reserved_blocks += missing;
    if (missing > 0 && room_blocks == 0) {
      return Refusal(absl::StatusCode::kResourceExhausted, "NO_SPACE", "full");
    }
    return std::make_unique<Slots>(*this, job.keys, first,
                                   first + std::min<uint32_t>(missing, room_blocks));
  }

  std::set<BlockKey> stored;
  uint32_t room_blocks = ~0u;
  uint32_t reserved_blocks = 0;

 private:
  class Slots final : public ChainSlots, public lanes::BlockSink {
   public:
    Slots(FakeTarget& target, std::vector<BlockKey> keys, uint32_t first, uint32_t end)
        : target_(target), keys_(std::move(keys)), first_(first), end_(end) {
      bytes_.assign(end - first, std::vector<uint8_t>(kFakeBlockBytes));
    }
    uint32_t first() const override { return first_; }
    uint32_t end() const override { return end_; }
    uint64_t block_bytes() const override { return kFakeBlockBytes; }
    lanes::BlockSink& sink() override { return *this; }
    uint32_t filled() const override { return filled_; }
    absl::Status Commit(std::span<const Checksum128> checksums) override {
      EXPECT_EQ(checksums.size(), filled_);
      for (uint32_t i = 0; i < filled_; ++i) {
        EXPECT_EQ(checksums[i], FakeChecksum(keys_[first_ + i])) << "not the client's checksum";
        if (!testing::HasContent(keys_[first_ + i], 0, bytes_[i])) {
          return Refusal(absl::StatusCode::kDataLoss, "CHECKSUM", "bytes are not the block's");
        }
      }
      for (uint32_t i = 0; i < filled_; ++i) target_.stored.insert(keys_[first_ + i]);
      return absl::OkStatus();
    }

    std::span<uint8_t> Buffer(uint32_t i) override { return bytes_.at(i); }
    absl::Status Complete(uint32_t i) override {
      filled_ = i + 1;
      return absl::OkStatus();
    }
    absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
      bytes_.at(i).assign(bytes.begin(), bytes.end());
      return Complete(i);
    }

   private:
    FakeTarget& target_;
    const std::vector<BlockKey> keys_;
    const uint32_t first_;
    const uint32_t end_;
    std::vector<std::vector<uint8_t>> bytes_;
    uint32_t filled_ = 0;
  };

  uint32_t Run(const ReplicationJob& job) const {
    uint32_t run = 0;
    while (run < job.keys.size() && stored.contains(job.keys[run])) ++run;
    return run;
  }
};

}  // namespace reprise::cluster
