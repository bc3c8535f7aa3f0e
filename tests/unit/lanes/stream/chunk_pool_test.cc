#include "cluster/lanes/stream/chunk_pool.h"

#include <gtest/gtest.h>

#include "proto/types/limits.h"

namespace reprise::lanes {
namespace {

TEST(ChunkPoolTest, AChunkComesBackWhenItsLastSliceIsDropped) {
  const std::shared_ptr<ChunkPool> pool = ChunkPool::Create();
  ChunkPool::Chunk chunk = pool->Take();
  const uint8_t* const memory = chunk.get();
  {
    const grpc::Slice slice = pool->ToSlice(std::move(chunk), 10'000);
    const grpc::Slice copy = slice;
    EXPECT_EQ(slice.begin(), memory);
    EXPECT_EQ(slice.size(), 10'000u);
    EXPECT_EQ(pool->idle(), 0u);
  }
  EXPECT_EQ(pool->idle(), 1u);
  EXPECT_EQ(pool->Take().get(), memory);
}

TEST(ChunkPoolTest, NoMoreIsKeptThanTheLimitSays) {
  const std::shared_ptr<ChunkPool> pool = ChunkPool::Create();
  std::vector<grpc::Slice> out;
  for (size_t i = 0; i < limits::kStagingChunksMax * 2; ++i) {
    out.push_back(pool->ToSlice(pool->Take(), 1000));
  }
  out.clear();
  EXPECT_EQ(pool->idle(), limits::kStagingChunksMax);
}

TEST(ChunkPoolTest, ASliceOutlivesWhoeverTookIt) {
  std::shared_ptr<ChunkPool> pool = ChunkPool::Create();
  ChunkPool::Chunk chunk = pool->Take();
  chunk[99] = 42;
  const grpc::Slice slice = pool->ToSlice(std::move(chunk), 100);
  pool.reset();
  EXPECT_EQ(slice.begin()[99], 42);
}

}  // namespace
}  // namespace reprise::lanes
