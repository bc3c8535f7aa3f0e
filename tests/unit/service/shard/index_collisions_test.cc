// The engine built with an index hash of 16 bits: thousands of keys collide and no read is wrong.

#include <set>

#include "service/index/block_index.h"
#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

using Collisions = EngineTest;

TEST_F(Collisions, ThousandsOfCollisionsGiveNoWrongRead) {
  static_assert(std::is_same_v<BlockIndex, BasicBlockIndex<TruncatedSpaceKeyHash>>);
  Start(16 * kMiB);
  const CacheSpec tiny = SmallSpec(2, 2);
  const SpecHandle spec = Open(me_, tiny);
  constexpr size_t kChains = 300, kLength = 100;
  std::set<size_t> hashes;
  for (size_t i = 0; i < kChains; ++i) {
    const std::vector<BlockKey> keys = ChainNamed(absl::StrCat("stored", i), kLength);
    ASSERT_EQ(Store(me_, tiny, {.spec = spec, .keys = keys}).commit.committed, kLength);
    for (const BlockKey& key : keys)
      hashes.insert(TruncatedSpaceKeyHash()(SpaceKey{KeySpaceId(2), key}));
  }
  EXPECT_GT(kChains * kLength - hashes.size(),
            2000u);  // keys that share their hash with an earlier one
  for (size_t i = 0; i < kChains; ++i) {
    const std::vector<BlockKey> keys = ChainNamed(absl::StrCat("stored", i), kLength);
    const auto acquired = engine_->Acquire(me_, {.spec = spec, .keys = keys});
    ASSERT_TRUE(acquired.ok());
    ASSERT_EQ(acquired->run_blocks, kLength);
    const auto opened = engine_->OpenRead(me_, acquired->lease, 0, 0);
    ASSERT_TRUE(opened.ok());
    for (size_t j = 0; j < kLength; ++j)
      ASSERT_TRUE(HasContent(keys[j], kSeed, (*opened)[j].bytes));
    for (const BlockKey& key : ChainNamed(absl::StrCat("other", i), kLength)) {
      ASSERT_EQ(Run(me_, spec, {key}), 0u);
    }
  }
}

}  // namespace
}  // namespace reprise::shard
