// Peers and a source that live in the test: every block that a peer took is compared with what the
// source has.
//
// Thread safety: as the interfaces that they stand for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "cluster/link/shard_link.h"
#include "cluster/membership/membership.h"
#include "cluster/peer/copy_chain.h"
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

// What one peer has and how it behaves.
struct FakePeer {
  absl::Mutex mu;
  std::set<BlockKey> stored ABSL_GUARDED_BY(mu);
  std::map<BlockKey, std::vector<uint8_t>> written ABSL_GUARDED_BY(mu);
  std::vector<std::string> sessions ABSL_GUARDED_BY(mu);  // of each Reserve
  int connects ABSL_GUARDED_BY(mu) = 0;
  absl::Status connect ABSL_GUARDED_BY(mu);  // not OK: what connecting says
  absl::Status write ABSL_GUARDED_BY(mu);    // not OK: what writing says
  bool draining ABSL_GUARDED_BY(mu) = false;
  size_t room_blocks ABSL_GUARDED_BY(mu) = ~size_t{0};
  absl::Notification* hold ABSL_GUARDED_BY(mu) = nullptr;  // Reserve waits for it
  absl::Notification* end ABSL_GUARDED_BY(mu) = nullptr;   // the end of a link waits for it

  std::set<BlockKey> Stored() {
    absl::MutexLock lock(&mu);
    return stored;
  }
};

class FakeLink final : public ShardLink, public lanes::Lane {
 public:
  FakeLink(FakePeer& peer, ShardId id) : peer_(peer), id_(std::move(id)) {}
  ~FakeLink() override {
    absl::Notification* end = nullptr;
    {
      absl::MutexLock lock(&peer_.mu);
      end = peer_.end;
    }
    if (end != nullptr) end->WaitForNotification();
  }

  bool alive() const override { return true; }
  bool draining() const override {
    absl::MutexLock lock(&peer_.mu);
    return peer_.draining;
  }
  const ShardId& shard_id() const override { return id_; }
  absl::StatusOr<OpenedSpec> OpenSpec(const CacheSpec&, absl::Time) override {
    return OpenedSpec{.handle = SpecHandle(1), .block_bytes = kFakeBlockBytes};
  }
  absl::StatusOr<uint32_t> Lookup(SpecHandle, std::span<const BlockKey>, absl::Time) override {
    return absl::UnimplementedError("not asked of a peer");
  }
  absl::StatusOr<AcquiredRun> Acquire(SpecHandle, std::span<const BlockKey>, uint32_t,
                                      absl::Time) override {
    return absl::UnimplementedError("not asked of a peer");
  }
  absl::Status Release(LeaseId, absl::Time) override { return absl::OkStatus(); }
  absl::StatusOr<ReservedRun> Reserve(const ReserveCall& call, absl::Time) override {
    EXPECT_TRUE(call.replica) << "a copy that is copied on never ends";
    absl::Notification* hold = nullptr;
    {
      absl::MutexLock lock(&peer_.mu);
      hold = peer_.hold;
    }
    if (hold != nullptr) hold->WaitForNotification();
    absl::MutexLock lock(&peer_.mu);
    peer_.sessions.push_back(call.session_id);
    ReservedRun reserved = {.reservation = ReservationId(reserved_.size() + 1)};
    const std::vector<BlockKey>& keys = reserved_.emplace_back(call.keys.begin(), call.keys.end());
    size_t room = peer_.room_blocks;
    for (const BlockKey& key : keys) {
      if (peer_.stored.contains(key)) {
        reserved.outcomes.push_back(ReserveOutcome::kPresent);
      } else if (room > 0) {
        --room;
        reserved.outcomes.push_back(ReserveOutcome::kGranted);
      } else {
        reserved.outcomes.push_back(ReserveOutcome::kNoSpace);
      }
    }
    return reserved;
  }
  absl::StatusOr<CommittedRun> Commit(ReservationId reservation, std::span<const uint32_t> blocks,
                                      std::span<const Checksum128> checksums, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    EXPECT_EQ(blocks.size(), checksums.size());
    const std::vector<BlockKey>& keys = reserved_.at(reservation.value - 1);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const BlockKey& key = keys[blocks[i]];
      EXPECT_EQ(checksums[i], FakeChecksum(key)) << "not the client's checksum";
      EXPECT_TRUE(testing::HasContent(key, 0, peer_.written[key])) << "not the block's bytes";
      EXPECT_TRUE(blocks[i] == 0 || peer_.stored.contains(keys[blocks[i] - 1])) << "a hole";
      peer_.stored.insert(key);
    }
    return CommittedRun{.committed = static_cast<uint32_t>(blocks.size())};
  }
  lanes::Lane& lane() override { return *this; }

  LaneKind kind() const override { return LaneKind::kStream; }
  absl::Status Read(const lanes::ReadJob&, lanes::BlockSink&, absl::Time) override {
    return absl::UnimplementedError("not asked of a peer");
  }
  absl::Status Write(const lanes::WriteJob& job, lanes::BlockSource& source, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    if (!peer_.write.ok()) return peer_.write;
    const std::vector<BlockKey>& keys = reserved_.at(job.reservation.value - 1);
    for (uint32_t i = 0; i < job.blocks.size(); ++i) {
      const auto bytes = source.Bytes(i);
      if (!bytes.ok()) return bytes.status();
      peer_.written[keys[job.blocks[i]]].assign(bytes->begin(), bytes->end());
    }
    return absl::OkStatus();
  }

 private:
  FakePeer& peer_;
  const ShardId id_;
  std::deque<std::vector<BlockKey>> reserved_ ABSL_GUARDED_BY(peer_.mu);  // the keys of each
};

// Has the first `stored_blocks` blocks of every chain.
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

 private:
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
};

// Peers by address, and how to reach them.
class FakeCluster {
 public:
  FakePeer& peer(const std::string& id) { return peers_[id]; }
  std::function<absl::StatusOr<std::unique_ptr<ShardLink>>(const Member&, absl::Time)> Connect() {
    return [this](const Member& member, absl::Time) -> absl::StatusOr<std::unique_ptr<ShardLink>> {
      FakePeer& peer = peers_.at(member.id.name);
      absl::MutexLock lock(&peer.mu);
      ++peer.connects;
      if (!peer.connect.ok()) return peer.connect;
      return std::make_unique<FakeLink>(peer, member.id);
    };
  }

 private:
  std::map<std::string, FakePeer> peers_;  // all there before the first Connect
};

}  // namespace reprise::cluster
