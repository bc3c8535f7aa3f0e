// Peers, a source and a target that live in the test: every block that was taken from one of them
// is compared with what it should be.
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
#include "cluster/membership/in_memory_membership.h"
#include "cluster/peer/copy_chain.h"
#include "cluster/peer/peers.h"
#include "cluster/peer/pull_target.h"
#include "cluster/peer/replication_source.h"
#include "cluster/placement/placement.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "tests/support/block_content.h"
#include "tests/support/manual_clock.h"

namespace reprise::cluster {

inline constexpr uint64_t kFakeBlockBytes = 64;

inline Checksum128 FakeChecksum(const BlockKey& key) {
  Checksum128 checksum;
  std::copy_n(key.bytes.begin(), checksum.bytes.size(), checksum.bytes.begin());
  return checksum;
}

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
  absl::Status connect ABSL_GUARDED_BY(mu);                    // not OK: what connecting says
  absl::Status write ABSL_GUARDED_BY(mu);                      // not OK: what writing says
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

// What tests of "shard-0" among others share: its peers, and chains of its own.
class PeeredTest : public ::testing::Test {
 protected:
  explicit PeeredTest(int shards) {
    std::vector<Member> members;
    for (int i = 0; i < shards; ++i) {
      const std::string id = absl::StrCat("shard-", i);
      members.push_back({.id = {id}, .address = absl::StrCat("127.0.0.1:", 7000 + i)});
      ids_.push_back({id});
      cluster_.peer(id);
    }
    membership_.Set(members);
  }
  static ReplicationJob Job(const std::string& session, size_t blocks) {
    return {.tenant = {kDefaultTenant},
            .spec = testing::SmallSpec(),
            .session_id = session,
            .keys = testing::ChainNamed(session, blocks)};
  }
  // The peers of a session, the next one first.
  std::vector<std::string> PeersOf(const std::string& session) {
    std::vector<std::string> peers;
    for (const ShardId& id : PlacementOrder(session, ids_)) {
      if (id.name != "shard-0") peers.push_back(id.name);
    }
    return peers;
  }

  FakeCluster cluster_;
  testing::ManualClock clock_;
  InMemoryMembership membership_;
  std::vector<ShardId> ids_;
  Peers peers_{{.self = {"shard-0"},
                .membership = &membership_,
                .clock = &clock_,
                .connect = cluster_.Connect()}};
};

}  // namespace reprise::cluster
