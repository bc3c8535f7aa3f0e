#include "service/index/block_index.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::KeyNamed;

template <typename Hash>
class BlockIndexTest : public ::testing::Test {
 protected:
  void Store(KeySpaceId space, std::span<const BlockKey> keys) {
    for (const BlockKey& key : keys) ASSERT_TRUE(index_.Insert({space, key}, {.block = next_++}));
  }
  BasicBlockIndex<Hash> index_;
  uint32_t next_ = 0;
};

// A hash that always collides: everything rests on comparing keys in full.
struct ConstantHash {
  size_t operator()(const SpaceKey&) const { return 42; }
};
using Hashes = ::testing::Types<SpaceKeyHash, TruncatedSpaceKeyHash, ConstantHash>;
TYPED_TEST_SUITE(BlockIndexTest, Hashes);

TYPED_TEST(BlockIndexTest, FindsWhatWasInsertedAndNothingElse) {
  const KeySpaceId space(1);
  const std::vector<BlockKey> keys = ChainNamed("a", 200);
  this->Store(space, keys);
  for (uint32_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(this->index_.Find({space, keys[i]}), (IndexEntry{.block = i}));
    EXPECT_FALSE(this->index_.Find({KeySpaceId(2), keys[i]}).has_value());
  }
  for (const BlockKey& key : ChainNamed("b", 200))
    EXPECT_FALSE(this->index_.Find({space, key}).has_value());
  EXPECT_EQ(this->index_.size(), 200u);
}

TYPED_TEST(BlockIndexTest, KeysThatDifferInOneBitAreDifferent) {
  const BlockKey key = KeyNamed("a");
  ASSERT_TRUE(this->index_.Insert({KeySpaceId(1), key}, {}));
  for (size_t bit = 0; bit < 8 * kDigestBytes; ++bit) {
    BlockKey other = key;
    other.bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_FALSE(this->index_.Find({KeySpaceId(1), other}).has_value()) << bit;
  }
}

TYPED_TEST(BlockIndexTest, TheFirstEntryOfAKeyStays) {
  const SpaceKey key{KeySpaceId(1), KeyNamed("a")};
  EXPECT_TRUE(this->index_.Insert(key, {.block = 1}));
  EXPECT_FALSE(this->index_.Insert(key, {.block = 2}));
  EXPECT_EQ(this->index_.Find(key)->block, 1u);
  EXPECT_TRUE(this->index_.Erase(key));
  EXPECT_FALSE(this->index_.Erase(key));
  EXPECT_TRUE(this->index_.Insert(key, {.block = 2}));
}

TYPED_TEST(BlockIndexTest, ARunOfEveryLengthIsCountedExactly) {
  const KeySpaceId space(3);
  const std::vector<BlockKey> keys = ChainNamed("a", 70);
  for (size_t stored = 0; stored <= keys.size(); ++stored) {
    for (size_t asked = 0; asked <= keys.size(); ++asked) {
      ASSERT_EQ(this->index_.RunLength(space, {keys.data(), asked}), std::min(stored, asked));
    }
    if (stored < keys.size()) this->Store(space, {&keys[stored], 1});
  }
}

TEST(BlockIndexConcurrency, ReadersSeeWholeEntriesWhileWritersComeAndGo) {
  BlockIndex index;
  const KeySpaceId space(1);
  const std::vector<BlockKey> keys = ChainNamed("a", 64);
  std::thread writer([&] {
    for (int round = 0; round < 200; ++round) {
      for (uint32_t i = 0; i < keys.size(); ++i) index.Insert({space, keys[i]}, {.block = i});
      for (uint32_t i = keys.size(); i > 0; --i) index.Erase({space, keys[i - 1]});
    }
  });
  std::vector<std::thread> readers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&] {
      for (int round = 0; round < 2000; ++round) {
        const uint32_t i = round % keys.size();
        const std::optional<IndexEntry> entry = index.Find({space, keys[i]});
        if (entry.has_value()) {
          EXPECT_EQ(entry->block, i);
        }
        EXPECT_LE(index.RunLength(space, keys), keys.size());
      }
    });
  }
  writer.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(index.size(), 0u);
}

}  // namespace
}  // namespace reprise::shard
