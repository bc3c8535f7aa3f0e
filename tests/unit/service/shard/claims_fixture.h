// What the tests of claims share: an engine in which all may be claimed, and the hints that do so.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {

// 64 slots of one tier; chains of 8 blocks.
class Claims : public EngineTest {
 protected:
  static constexpr size_t kSlots = 64;
  static constexpr size_t kLength = 8;
  static constexpr absl::Duration kTtl = absl::Minutes(10);

  // All that fits may be claimed, unless a test says otherwise.
  void SetUp() override { StartClaimable(2.0); }
  void StartClaimable(double share, TenantQuotas quotas = {}) {
    StartWith({.dram_bytes = 4 * kMiB,
               .quotas = std::move(quotas),
               .claimed_share = share,
               .background_eviction = false});
  }

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  void Fill(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      ASSERT_TRUE(Store(Chain(i)).status.ok()) << i;
    }
  }

  absl::StatusOr<HintResult> Ask(const std::vector<BlockKey>& keys, reprise::Hint hint) {
    return engine_->Hint(me_, {.spec = spec_, .keys = keys, .hint = std::move(hint)});
  }
  static reprise::Hint RetainHint(const std::string& name, uint32_t priority = 50,
                                  absl::Duration ttl = kTtl) {
    return {.verb = HintVerb::kRetain, .claim_id = name, .priority = priority, .ttl = ttl};
  }
  static reprise::Hint PinHint(const std::string& name, absl::Duration ttl = kTtl) {
    return {.verb = HintVerb::kPin, .claim_id = name, .ttl = ttl};
  }
  HintResult Place(const std::vector<BlockKey>& keys, reprise::Hint hint) {
    const absl::StatusOr<HintResult> placed = Ask(keys, std::move(hint));
    EXPECT_TRUE(placed.ok()) << placed.status();
    ExpectSound();
    return placed.value_or(HintResult());
  }
  absl::StatusOr<HintResult> Release(const std::string& name) {
    return Ask({}, {.verb = HintVerb::kRelease, .claim_id = name});
  }
  void ExpectClaimed(uint64_t blocks, uint64_t pinned = 0) {
    const ClaimsUse use = engine_->Describe(std::nullopt).claims;
    EXPECT_EQ(use.claimed_bytes, blocks * kBlockBytes);
    EXPECT_EQ(use.pinned_bytes, pinned * kBlockBytes);
  }
};

}  // namespace reprise::shard
