// What the engine's tests share: an engine on a manual clock, and the verbs in the form that a test
// wants.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/shard/shard_engine.h"
#include "tests/support/block_content.h"
#include "tests/support/host_hbm_device.h"
#include "tests/support/manual_clock.h"

namespace reprise::shard {

using reprise::testing::ChainNamed;
using reprise::testing::ChecksumOf;
using reprise::testing::FillContent;
using reprise::testing::HasContent;
using reprise::testing::KeyNamed;
using reprise::testing::ManualClock;
using reprise::testing::SmallSpec;

inline constexpr uint64_t kMiB = 1 << 20;

// The refusal's code and reason, e.g. "NOT_FOUND LEASE_UNKNOWN"; "OK" without one.
inline std::string CodeAndReason(const absl::Status& status) {
  if (status.ok()) return "OK";
  return absl::StrCat(absl::StatusCodeToString(status.code()), " ", RefusalReason(status));
}

// A slot's bytes for whoever has only the engine to reach them: device memory is copied.
inline void PutContent(ShardEngine& engine, const lanes::PinnedSlot& slot, const BlockKey& key,
                       uint64_t seed) {
  std::vector<uint8_t> bytes(slot.bytes.size());
  FillContent(key, seed, bytes);
  if (slot.memory == lanes::MemoryKind::kHost) {
    std::copy(bytes.begin(), bytes.end(), slot.bytes.begin());
    return;
  }
  const absl::Status copied = engine.CopyToDevice(bytes, slot.bytes);
  EXPECT_TRUE(copied.ok()) << copied;
}
inline std::vector<uint8_t> BytesOf(ShardEngine& engine, const lanes::PinnedBytes& block) {
  if (block.memory == lanes::MemoryKind::kHost) return {block.bytes.begin(), block.bytes.end()};
  std::vector<uint8_t> bytes(block.bytes.size());
  const absl::Status copied = engine.CopyToHost(block.bytes, bytes);
  EXPECT_TRUE(copied.ok()) << copied;
  return bytes;
}
// The checksum of the content that PutContent puts.
inline Checksum128 ContentChecksum(const BlockKey& key, uint64_t seed, const CacheSpec& spec) {
  const BlockLayout layout = LayoutOf(spec);
  std::vector<uint8_t> bytes(layout.block_bytes);
  FillContent(key, seed, bytes);
  return ChecksumOf(bytes, layout.layer_bytes);
}

class EngineTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kSeed = 7;

  void SetUp() override { Start(4 * kMiB); }
  void TearDown() override {
    if (engine_ != nullptr) ExpectSound();
  }

  void Start(uint64_t dram_bytes, bool background_eviction = false, TenantQuotas quotas = {}) {
    StartWith({.dram_bytes = dram_bytes,
               .quotas = std::move(quotas),
               .background_eviction = background_eviction});
  }

  // With device memory above, which the CPU may not touch.
  void StartTiered(uint64_t hbm_bytes, uint64_t dram_bytes, bool background_eviction = false) {
    engine_ = nullptr;
    control_ = std::make_shared<reprise::testing::HostHbmControl>();
    control_->guarded = true;
    StartWith({.dram_bytes = dram_bytes,
               .hbm_bytes = hbm_bytes,
               .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_),
               .background_eviction = background_eviction});
  }

  void StartWith(ShardEngineOptions options) {
    engine_ = nullptr;
    options.id = {"shard-0"};
    options.clock = &clock_;
    auto engine = ShardEngine::Create(std::move(options));
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    me_ = Attach("default", "test");
    spec_ = Open(me_, kSpec);
  }

  void ExpectSound() {
    const absl::Status sound = engine_->CheckInvariants();
    EXPECT_TRUE(sound.ok()) << sound;
  }

  AttachmentId Attach(const std::string& tenant, const std::string& name = "test") {
    const absl::StatusOr<AttachmentId> id = engine_->Attach(Tenant{tenant}, name);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(AttachmentId());
  }
  SpecHandle Open(AttachmentId who, const CacheSpec& spec) {
    const absl::StatusOr<OpenSpecResult> opened = engine_->OpenSpec(who, spec, std::nullopt);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? opened->handle : SpecHandle();
  }

  // Writes granted block `index` of a reservation and returns its checksum.
  Checksum128 Write(AttachmentId who, ReservationId reservation, uint32_t index,
                    const BlockKey& key, const CacheSpec& spec) {
    const absl::StatusOr<lanes::PinnedSlot> slot = engine_->OpenWrite(who, reservation, index);
    EXPECT_TRUE(slot.ok()) << slot.status();
    if (!slot.ok()) return {};
    PutContent(*engine_, *slot, key, kSeed);
    const absl::Status written = engine_->Written(who, reservation, index, slot->bytes.size());
    EXPECT_TRUE(written.ok()) << written;
    return ContentChecksum(key, kSeed, spec);
  }

  struct Stored {
    absl::Status status;
    std::vector<ReserveOutcome> outcomes;
    CommitResult commit;
  };
  // Reserve, write and commit whatever is granted.
  Stored Store(AttachmentId who, const CacheSpec& spec, ReserveArgs args) {
    Stored stored;
    const absl::StatusOr<ReserveResult> reserved = engine_->Reserve(who, args);
    stored.status = reserved.status();
    if (!reserved.ok()) return stored;
    stored.outcomes = reserved->outcomes;
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < args.keys.size(); ++i) {
      if (reserved->outcomes[i] != ReserveOutcome::kGranted) continue;
      checksums.push_back(Write(who, reserved->reservation, i, args.keys[i], spec));
    }
    if (checksums.empty()) return stored;
    const absl::StatusOr<CommitResult> committed =
        engine_->Commit(who, {.reservation = reserved->reservation, .checksums = checksums});
    stored.status = committed.status();
    if (committed.ok()) stored.commit = *committed;
    return stored;
  }
  Stored Store(const std::vector<BlockKey>& keys) {
    return Store(me_, kSpec, {.spec = spec_, .keys = keys});
  }

  uint32_t Run(const std::vector<BlockKey>& keys) { return Run(me_, spec_, keys); }
  uint32_t Run(AttachmentId who, SpecHandle spec, const std::vector<BlockKey>& keys) {
    const absl::StatusOr<LookupResult> found = engine_->Lookup(who, spec, keys);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->run_blocks : 0;
  }
  static std::vector<BlockKey> First(std::vector<BlockKey> keys, size_t blocks) {
    keys.resize(blocks);
    return keys;
  }
  // Blocks of a chain by tier; nothing is touched.
  std::vector<TierRun> TiersOf(const std::vector<BlockKey>& keys) {
    return engine_->Lookup(me_, spec_, keys)->tiers;
  }
  static TierRun Hbm(uint32_t blocks) { return {.tier = Tier::kHbm, .blocks = blocks}; }
  static TierRun Dram(uint32_t blocks) { return {.tier = Tier::kDram, .blocks = blocks}; }
  static TierRun Nvme(uint32_t blocks) { return {.tier = Tier::kNvme, .blocks = blocks}; }
  AcquireResult Acquire(const std::vector<BlockKey>& keys,
                        absl::Duration ttl = absl::ZeroDuration()) {
    const absl::StatusOr<AcquireResult> acquired =
        engine_->Acquire(me_, {.spec = spec_, .keys = keys, .ttl = ttl});
    EXPECT_TRUE(acquired.ok()) << acquired.status();
    return acquired.ok() ? *acquired : AcquireResult();
  }
  // Every byte of every block of the lease is what was written under its key.
  void ExpectReads(LeaseId lease, const std::vector<BlockKey>& keys) {
    const auto opened = engine_->OpenRead(me_, lease, 0, 0);
    ASSERT_TRUE(opened.ok()) << opened.status();
    ASSERT_EQ(opened->size(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i)
      EXPECT_TRUE(HasContent(keys[i], kSeed, BytesOf(*engine_, (*opened)[i]))) << i;
  }

  uint64_t CounterValue(const std::string& name) {
    for (const auto& [counter, value] : engine_->Describe(Tenant{"default"}).counters) {
      if (counter == name) return value;
    }
    ADD_FAILURE() << "no counter " << name;
    return 0;
  }
  uint64_t UsedBytes() { return engine_->Describe(Tenant{"default"}).tiers.at(0).used_bytes; }

  // 64 KiB blocks: 32 in an extent of 2 MiB, 64 in the default pool.
  const CacheSpec kSpec = SmallSpec(64, 16);
  const uint64_t kBlockBytes = LayoutOf(kSpec).block_bytes;
  ManualClock clock_;
  std::shared_ptr<reprise::testing::HostHbmControl> control_;  // of StartTiered
  std::unique_ptr<ShardEngine> engine_;
  AttachmentId me_;
  SpecHandle spec_;
};

}  // namespace reprise::shard
