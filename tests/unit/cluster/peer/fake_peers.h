// Peers that live in the test: every block that one took is compared with what the source has.
//
// Thread safety: as the interfaces that they stand for.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
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
#include "cluster/peer/peer_links.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "tests/support/block_content.h"
#include "tests/unit/cluster/peer/fake_chains.h"

namespace reprise::cluster {

// Reserves of all peers, in the order in which they came.
inline std::atomic<int> reserves_of_all{0};

// One Reserve that a peer was asked.
struct FakeReserve {
  int number = 0;  // among those of all peers
  std::string session;
  bool spare_room = false;
};

// What one peer has and how it behaves.
struct FakePeer {
  absl::Mutex mu;
  std::set<BlockKey> stored ABSL_GUARDED_BY(mu);
  std::map<BlockKey, std::vector<uint8_t>> written ABSL_GUARDED_BY(mu);
  std::vector<FakeReserve> reserves ABSL_GUARDED_BY(mu);
  int connects ABSL_GUARDED_BY(mu) = 0;
  std::vector<std::string> tenants ABSL_GUARDED_BY(mu);        // for whom links were made
  absl::Status connect ABSL_GUARDED_BY(mu);                    // not OK: what connecting says
  absl::Status write ABSL_GUARDED_BY(mu);                      // not OK: what writing says
  absl::Status hint ABSL_GUARDED_BY(mu);                       // not OK: what a hint is told
  std::vector<ChainClaim> claims ABSL_GUARDED_BY(mu);          // that it was asked to keep
  int writes_until_it_breaks ABSL_GUARDED_BY(mu) = -1;         // once; -1: never
  uint64_t block_bytes ABSL_GUARDED_BY(mu) = kFakeBlockBytes;  // as it tells
  bool draining ABSL_GUARDED_BY(mu) = false;
  size_t room_blocks ABSL_GUARDED_BY(mu) = ~size_t{0};
  size_t spare_blocks ABSL_GUARDED_BY(mu) = ~size_t{0};  // of them, what nothing has to go for
  int pending_reserves ABSL_GUARDED_BY(mu) = 0;          // so many find another writer at work
  int lookups ABSL_GUARDED_BY(mu) = 0;
  int leases ABSL_GUARDED_BY(mu) = 0;                       // that are held now
  int die_at_block ABSL_GUARDED_BY(mu) = -1;                // of a read
  int corrupt_block ABSL_GUARDED_BY(mu) = -1;               // of a read
  std::function<void()> before_commit ABSL_GUARDED_BY(mu);  // called without the lock
  absl::Notification* hold ABSL_GUARDED_BY(mu) = nullptr;   // Reserve waits for it
  absl::Notification* end ABSL_GUARDED_BY(mu) = nullptr;    // the end of a link waits for it

  std::vector<std::string> Tenants() {
    absl::MutexLock lock(&mu);
    return tenants;
  }
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
    absl::MutexLock lock(&peer_.mu);
    return OpenedSpec{.handle = SpecHandle(1), .block_bytes = peer_.block_bytes};
  }
  absl::StatusOr<uint32_t> Lookup(SpecHandle, std::span<const BlockKey> keys, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    ++peer_.lookups;
    return Run(keys);
  }
  absl::StatusOr<AcquiredRun> Acquire(SpecHandle, std::span<const BlockKey> keys,
                                      uint32_t first_block, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    AcquiredRun run{.run_blocks = Run(keys), .first_block = first_block};
    if (run.run_blocks <= first_block) return run;
    ++peer_.leases;
    leased_.emplace_back(keys.begin(), keys.begin() + run.run_blocks);
    run.lease = LeaseId(leased_.size());
    for (uint32_t i = first_block; i < run.run_blocks; ++i) {
      run.checksums.push_back(FakeChecksum(keys[i]));
    }
    return run;
  }
  absl::Status Release(LeaseId, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    --peer_.leases;
    return absl::OkStatus();
  }
  absl::StatusOr<ReservedRun> Reserve(const ReserveCall& call, absl::Time) override {
    EXPECT_TRUE(call.replica) << "a copy that is copied on never ends";
    absl::Notification* hold = nullptr;
    {
      absl::MutexLock lock(&peer_.mu);
      hold = peer_.hold;
    }
    if (hold != nullptr) hold->WaitForNotification();
    absl::MutexLock lock(&peer_.mu);
    peer_.reserves.push_back(
        {.number = ++reserves_of_all, .session = call.session_id, .spare_room = call.spare_room});
    ReservedRun reserved = {.reservation = ReservationId(reserved_.size() + 1)};
    const std::vector<BlockKey>& keys = reserved_.emplace_back(call.keys.begin(), call.keys.end());
    if (peer_.pending_reserves > 0) {
      --peer_.pending_reserves;
      reserved.outcomes.assign(keys.size(), ReserveOutcome::kPending);
      return reserved;
    }
    size_t room =
        call.spare_room ? std::min(peer_.room_blocks, peer_.spare_blocks) : peer_.room_blocks;
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
    std::function<void()>* before = nullptr;
    {
      absl::MutexLock lock(&peer_.mu);
      if (peer_.before_commit) before = &peer_.before_commit;
    }
    if (before != nullptr) (*before)();
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
  absl::StatusOr<PulledRun> Pull(const PullCall&, absl::Time) override {
    return absl::UnimplementedError("not asked of a peer");
  }
  absl::StatusOr<HintResult> Hint(const HintCall& call, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    peer_.claims.push_back({.hint = call.hint, .blocks = static_cast<uint32_t>(call.keys.size())});
    if (!peer_.hint.ok()) return peer_.hint;
    return HintResult{.outcome = HintOutcome::kApplied, .blocks = Run(call.keys)};
  }
  lanes::Lane& lane() override { return *this; }

  LaneKind kind() const override { return LaneKind::kStream; }
  absl::Status Read(const lanes::ReadJob& job, lanes::BlockSink& sink, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    const std::vector<BlockKey>& keys = leased_.at(job.lease.value - 1);
    for (uint32_t i = 0; i < job.blocks; ++i) {
      if (peer_.die_at_block == static_cast<int>(i)) return absl::UnavailableError("it died");
      const std::span<uint8_t> buffer = sink.Buffer(i);
      testing::FillContent(keys.at(job.first + i), 0, buffer);
      if (peer_.corrupt_block == static_cast<int>(i)) buffer[7] ^= 1;
      REPRISE_RETURN_IF_ERROR(sink.Complete(i));
    }
    return absl::OkStatus();
  }
  absl::Status Write(const lanes::WriteJob& job, lanes::BlockSource& source, absl::Time) override {
    absl::MutexLock lock(&peer_.mu);
    if (!peer_.write.ok()) return peer_.write;
    if (peer_.writes_until_it_breaks == 0) {
      peer_.writes_until_it_breaks = -1;
      return absl::UnavailableError("the stream broke");
    }
    if (peer_.writes_until_it_breaks > 0) --peer_.writes_until_it_breaks;
    const std::vector<BlockKey>& keys = reserved_.at(job.reservation.value - 1);
    for (uint32_t i = 0; i < job.blocks.size(); ++i) {
      const auto bytes = source.Bytes(i);
      if (!bytes.ok()) return bytes.status();
      peer_.written[keys[job.blocks[i]]].assign(bytes->begin(), bytes->end());
    }
    return absl::OkStatus();
  }

 private:
  uint32_t Run(std::span<const BlockKey> keys) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(peer_.mu) {
    uint32_t run = 0;
    while (run < keys.size() && peer_.stored.contains(keys[run])) ++run;
    return run;
  }

  FakePeer& peer_;
  const ShardId id_;
  std::deque<std::vector<BlockKey>> reserved_ ABSL_GUARDED_BY(peer_.mu);  // the keys of each
  std::deque<std::vector<BlockKey>> leased_ ABSL_GUARDED_BY(peer_.mu);    // the same of leases
};

// Peers by address, and how to reach them.
class FakeCluster {
 public:
  FakePeer& peer(const std::string& id) { return peers_[id]; }
  PeerLinks::Connect Connect() {
    return [this](const Member& member, const Tenant& tenant,
                  absl::Time) -> absl::StatusOr<std::unique_ptr<ShardLink>> {
      FakePeer& peer = peers_.at(member.id.name);
      absl::MutexLock lock(&peer.mu);
      ++peer.connects;
      peer.tenants.push_back(tenant.name);
      if (!peer.connect.ok()) return peer.connect;
      return std::make_unique<FakeLink>(peer, member.id);
    };
  }

 private:
  std::map<std::string, FakePeer> peers_;  // all there before the first Connect
};

}  // namespace reprise::cluster
