// The client's small parts: fetch plan, order of stores, threads, staging, caller's memory.
#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/cpp/caller_memory.h"
#include "client/cpp/executor.h"
#include "client/cpp/fetch_plan.h"
#include "client/cpp/prefill_rates.h"
#include "client/cpp/staging.h"
#include "client/cpp/store_order.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "rapidcheck.h"
#include "tests/support/block_content.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::FillContent;
using reprise::testing::HasContent;
using reprise::testing::SmallSpec;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// ---- Fetch plan

TEST(FetchPlanTest, OneSourceIsOnePiece) {
  const std::vector<SourceRange> sources = {{0, 10}};
  EXPECT_THAT(PlanFetch(sources, 2, 9), ElementsAre(FetchPiece{0, 2, 9}));
}

TEST(FetchPlanTest, SourcesThatFollowEachOtherAreJoined) {
  const std::vector<SourceRange> sources = {{0, 4}, {4, 10}};
  EXPECT_THAT(PlanFetch(sources, 0, 10), ElementsAre(FetchPiece{0, 0, 4}, FetchPiece{1, 4, 10}));
}

TEST(FetchPlanTest, EqualSourcesShareALongRun) {
  const std::vector<SourceRange> sources = {{0, 100}, {0, 100}};
  EXPECT_THAT(PlanFetch(sources, 0, 100),
              ElementsAre(FetchPiece{0, 0, 50}, FetchPiece{1, 50, 100}));
}

TEST(FetchPlanTest, AShortRunIsNotSplit) {
  const std::vector<SourceRange> sources = {{0, 8}, {0, 8}};
  EXPECT_THAT(PlanFetch(sources, 0, 8), ElementsAre(FetchPiece{0, 0, 8}));
}

TEST(FetchPlanTest, AGapEndsThePlan) {
  const std::vector<SourceRange> sources = {{0, 3}, {5, 9}};
  EXPECT_THAT(PlanFetch(sources, 0, 9), ElementsAre(FetchPiece{0, 0, 3}));
  EXPECT_THAT(PlanFetch(sources, 3, 9), IsEmpty());
}

TEST(FetchPlanTest, EveryBlockIsReadOnceFromASourceThatHasIt) {
  EXPECT_TRUE(rc::check([] {
    const size_t count = *rc::gen::inRange(0, 5);
    std::vector<SourceRange> sources;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t first = *rc::gen::inRange(0, 60);
      sources.push_back({first, first + *rc::gen::inRange(0, 60)});
    }
    const uint32_t first = *rc::gen::inRange(0, 20);
    const uint32_t end = first + *rc::gen::inRange(0, 80);
    for (SourceRange& source : sources) source.flows = *rc::gen::inRange(1, 6);
    const uint64_t block_bytes = *rc::gen::element<uint64_t>(1, 64 << 10, 2 << 20, 16 << 20);
    uint32_t at = first;
    for (const FetchPiece& piece :
         CutForFlows(PlanFetch(sources, first, end), sources, block_bytes)) {
      RC_ASSERT(piece.first == at && piece.end > piece.first);
      RC_ASSERT(sources[piece.source].first <= piece.first &&
                piece.end <= sources[piece.source].end);
      at = piece.end;
    }
    RC_ASSERT(at <= end);
    const bool has_next = std::any_of(sources.begin(), sources.end(), [&](const SourceRange& s) {
      return s.first <= at && at < s.end;
    });
    RC_ASSERT(at == end || !has_next);
  }));
}

TEST(FetchPlanTest, APieceIsCutForAsManyConnectionsAsItIsWorth) {
  constexpr uint64_t kBytes = limits::kFlowBytesMin / 4;
  EXPECT_EQ(FlowParts(3, kBytes, 4), 1u);
  EXPECT_EQ(FlowParts(8, kBytes, 4), 2u);
  EXPECT_EQ(FlowParts(15, kBytes, 4), 3u);
  EXPECT_EQ(FlowParts(1000, kBytes, 4), 4u);
  EXPECT_EQ(FlowParts(1000, kBytes, 1), 1u);
  EXPECT_EQ(FlowParts(1000, kBytes, 0), 1u);
  EXPECT_EQ(FlowParts(2, limits::kFlowBytesMin, 4), 2u);
  EXPECT_EQ(FlowParts(20, limits::kTransferChunkBytes + 1, 4), 1u);
  EXPECT_EQ(FlowParts(0, kBytes, 4), 1u);
  const std::vector<SourceRange> sources = {{0, 20, 4}, {20, 40, 1}};
  EXPECT_THAT(CutForFlows(PlanFetch(sources, 5, 40), sources, kBytes),
              ElementsAre(FetchPiece{0, 5, 10}, FetchPiece{0, 10, 15}, FetchPiece{0, 15, 20},
                          FetchPiece{1, 20, 40}));
}

// ---- Order of stores

TEST(StoreOrderTest, AStoreWaitsForTheOneThatStoresItsParent) {
  StoreOrder order;
  const auto keys = ChainNamed("chain", 6);
  auto first = order.Enter(std::span(keys).first(3), 0);
  const auto second = order.Enter(keys, 3);
  EXPECT_TRUE(absl::IsDeadlineExceeded(second->Wait(absl::Now())));
  first.reset();
  EXPECT_TRUE(second->Wait(absl::Now()).ok());
}

TEST(StoreOrderTest, StoresOfOtherChainsDoNotWait) {
  StoreOrder order;
  const auto one = ChainNamed("one", 6), other = ChainNamed("other", 6);
  const auto first = order.Enter(one, 0);
  EXPECT_TRUE(order.Enter(other, 3)->Wait(absl::Now()).ok());
  EXPECT_TRUE(order.Enter(one, 0)->Wait(absl::Now()).ok());
}

// ---- Threads

// One thread is busy from now on, until `release`.
void Occupy(Executor& executor, absl::Notification& release) {
  absl::Notification busy;
  ASSERT_TRUE(executor
                  .Submit({absl::InfiniteFuture(),
                           [&] {
                             busy.Notify();
                             release.WaitForNotification();
                           },
                           [](const absl::Status&) {}})
                  .ok());
  busy.WaitForNotification();
}

TEST(ExecutorTest, RunAllEndsEvenWhenEveryThreadIsBusyAndLeavesNothingInTheQueue) {
  Executor executor(1, 1);
  absl::Notification release;
  Occupy(executor, release);
  std::atomic<int> ran{0};
  executor.RunAll({[&] { ++ran; }, [&] { ++ran; }, [&] { ++ran; }});
  EXPECT_EQ(ran, 3);
  EXPECT_TRUE(executor.Submit({absl::InfiniteFuture(), [] {}, [](const absl::Status&) {}}).ok())
      << "the queue of one is full of helpers";
  release.Notify();
}

// The caller and both threads meet, at the latest once both threads wait for a job.
TEST(ExecutorTest, RunAllRunsSideBySideWhereThreadsAreFree) {
  Executor executor(2, 10);
  const absl::Time end = absl::Now() + absl::Seconds(20);
  int met = 0;
  while (met < 3) {
    ASSERT_LT(absl::Now(), end) << "never more than " << met << " at once";
    std::atomic<int> arrived{0};
    const auto meet = [&] {
      ++arrived;
      const absl::Time patience = absl::Now() + absl::Milliseconds(100);
      while (arrived < 3 && absl::Now() < patience) std::this_thread::yield();
      return static_cast<int>(arrived);
    };
    std::atomic<int> first{0}, second{0}, third{0};
    executor.RunAll({[&] { first = meet(); }, [&] { second = meet(); }, [&] { third = meet(); }});
    // One thread after the other counts to one, two, three: it is the first that tells.
    met = std::min({first.load(), second.load(), third.load()});
  }
}

TEST(ExecutorTest, AJobThatWaitsBeyondItsDeadlineIsDropped) {
  Executor executor(1, 10);
  absl::Notification release, dropped;
  absl::Status status;
  ASSERT_TRUE(executor
                  .Submit({absl::InfiniteFuture(), [&] { release.WaitForNotification(); },
                           [](const absl::Status&) {}})
                  .ok());
  ASSERT_TRUE(executor
                  .Submit({absl::Now() + absl::Milliseconds(20), [] { FAIL() << "ran"; },
                           [&](const absl::Status& why) {
                             status = why;
                             dropped.Notify();
                           }})
                  .ok());
  ASSERT_TRUE(dropped.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  release.Notify();
}

TEST(ExecutorTest, AJobThatComesLaterAndIsDueEarlierIsDroppedFirst) {
  Executor executor(1, 10);
  absl::Notification release, dropped;
  Occupy(executor, release);
  // The thread that drops sleeps until this one is due, and is woken by the next.
  std::atomic<bool> ran{false};
  ASSERT_TRUE(
      executor
          .Submit({absl::Now() + absl::Hours(1), [&] { ran = true; }, [](const absl::Status&) {}})
          .ok());
  absl::SleepFor(absl::Milliseconds(20));
  ASSERT_TRUE(executor
                  .Submit({absl::Now() + absl::Milliseconds(20), [] { FAIL() << "ran"; },
                           [&](const absl::Status&) { dropped.Notify(); }})
                  .ok());
  EXPECT_TRUE(dropped.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_FALSE(ran);
  release.Notify();
}

TEST(ExecutorTest, AFullQueueRefusesAtOnce) {
  Executor executor(1, 1);
  absl::Notification release, blocked;
  const auto drop = [](const absl::Status&) {};
  ASSERT_TRUE(executor
                  .Submit({absl::InfiniteFuture(),
                           [&] {
                             blocked.Notify();
                             release.WaitForNotification();
                           },
                           drop})
                  .ok());
  blocked.WaitForNotification();
  ASSERT_TRUE(executor.Submit({absl::InfiniteFuture(), [] {}, drop}).ok());
  EXPECT_EQ(RefusalReason(executor.Submit({absl::InfiniteFuture(), [] {}, drop})),
            "CLIENT_QUEUE_FULL");
  release.Notify();
}

TEST(ExecutorTest, StopDropsWhatIsQueued) {
  auto executor = std::make_unique<Executor>(1, 10);
  absl::Notification release, blocked;
  std::atomic<int> dropped{0};
  const auto drop = [&](const absl::Status& why) {
    EXPECT_TRUE(absl::IsCancelled(why));
    ++dropped;
    release.Notify();  // lets the running job end, which Stop waits for
  };
  ASSERT_TRUE(executor
                  ->Submit({absl::InfiniteFuture(),
                            [&] {
                              blocked.Notify();
                              release.WaitForNotification();
                            },
                            drop})
                  .ok());
  blocked.WaitForNotification();
  ASSERT_TRUE(executor->Submit({absl::InfiniteFuture(), [] { FAIL() << "ran"; }, drop}).ok());
  executor->Stop();
  EXPECT_EQ(dropped, 1);
  EXPECT_TRUE(absl::IsCancelled(executor->Submit({absl::InfiniteFuture(), [] {}, drop})));
}

// ---- Staging

TEST(StagingTest, BuffersAreGivenOnceAndComeBack) {
  Staging staging(2);
  const size_t count = 2 + limits::kBlockingCallersStaged;
  std::vector<StagingBuffer> held;
  for (size_t i = 0; i < count; ++i) {
    auto buffer = staging.Get(1000, absl::Now());
    ASSERT_TRUE(buffer.ok());
    for (const StagingBuffer& other : held) EXPECT_NE(other.bytes().data(), buffer->bytes().data());
    held.push_back(*std::move(buffer));
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(staging.Get(1000, absl::Now()).status()));
  held.pop_back();
  EXPECT_TRUE(staging.Get(1000, absl::Now()).ok());
  EXPECT_EQ(staging.capacity_bytes(), count * 4096);
}

TEST(StagingTest, LargeBlocksGetFewerBuffers) {
  Staging staging(64);
  const uint64_t large = limits::kStagingBytesMax / 2;
  ASSERT_TRUE(staging.Get(large, absl::Now()).ok());
  EXPECT_EQ(staging.capacity_bytes(), limits::kStagingBytesMax);
}

// ---- The caller's memory

struct Paged {
  explicit Paged(const BlockLayout& layout, uint32_t page_tokens, uint32_t pages) {
    const int64_t token = static_cast<int64_t>(layout.row_data_bytes * layout.heads);
    const int64_t page = token * page_tokens;
    for (uint32_t i = 0; i < layout.layers * layout.planes; ++i) {
      tensors.emplace_back(static_cast<size_t>(page) * pages, uint8_t{0xee});
      planes.push_back(
          {tensors.back().data(), page, static_cast<int64_t>(layout.row_data_bytes), token});
    }
  }
  std::vector<std::vector<uint8_t>> tensors;
  std::vector<kernels::PagedPlane> planes;
};

TEST(CallerMemoryTest, AWrongChecksumLeavesPagedTensorsUntouched) {
  const CacheSpec spec = SmallSpec();
  const BlockLayout layout = LayoutOf(spec);
  Paged engine(layout, spec.block_tokens, 4);
  const auto before = engine.tensors;
  CallerMemory memory{.buffers = {},
                      .plan = *MakePagedPlan(layout, engine.planes, spec.block_tokens),
                      .pages = {2}};
  Staging staging(1);
  std::vector<uint8_t> block(layout.block_bytes, 1);
  const std::vector<Checksum128> wrong(1);
  VerifyingSink sink({.memory = &memory,
                      .layout = &layout,
                      .staging = &staging,
                      .first = 0,
                      .deadline = absl::InfiniteFuture()},
                     wrong, [](uint32_t) { return absl::OkStatus(); });
  ASSERT_TRUE(sink.Prepare().ok());
  EXPECT_EQ(RefusalReason(sink.Deliver(0, block)), "BLOCK_CORRUPT");
  std::copy(block.begin(), block.end(), sink.Buffer(0).begin());
  EXPECT_EQ(RefusalReason(sink.Complete(0)), "BLOCK_CORRUPT");
  EXPECT_EQ(engine.tensors, before);
}

TEST(CallerMemoryTest, PagedTensorsAreStoredAndRestoredBitForBit) {
  const CacheSpec spec = SmallSpec(3, 8);
  const BlockLayout layout = LayoutOf(spec);
  constexpr uint32_t kPageTokens = 4, kPages = 6;
  Paged from(layout, kPageTokens, kPages), to(layout, kPageTokens, kPages);
  for (size_t i = 0; i < from.tensors.size(); ++i) FillContent({}, i, from.tensors[i]);
  const CallerMemory source{.buffers = {},
                            .plan = *MakePagedPlan(layout, from.planes, kPageTokens),
                            .pages = {4, 1, 0, 3}};
  const CallerMemory target{
      .buffers = {}, .plan = *MakePagedPlan(layout, to.planes, kPageTokens), .pages = {4, 1, 0, 3}};
  ASSERT_TRUE(source.Check(layout, 2).ok());
  Staging staging(1);
  const BlockTransfer out{.memory = &source,
                          .layout = &layout,
                          .staging = &staging,
                          .first = 0,
                          .deadline = absl::InfiniteFuture()};
  const BlockTransfer in{.memory = &target,
                         .layout = &layout,
                         .staging = &staging,
                         .first = 0,
                         .deadline = absl::InfiniteFuture()};
  const std::vector<uint32_t> blocks = {0, 1};
  ChecksummingSource gather(out, blocks, [] { return absl::OkStatus(); });
  std::vector<std::vector<uint8_t>> stored;
  for (uint32_t i : blocks) {
    const auto bytes = *gather.Bytes(i);
    stored.emplace_back(bytes.begin(), bytes.end());
    std::vector<uint8_t> slot(layout.block_bytes, 0xcc);
    ChecksummingSource fill(out, std::span(blocks).subspan(i), [] { return absl::OkStatus(); });
    ASSERT_TRUE(fill.Fill(0, slot).ok());
    EXPECT_EQ(slot, stored.back());
    EXPECT_EQ(fill.checksums()[0], gather.checksums()[i]);
  }
  VerifyingSink scatter(in, gather.checksums(), [](uint32_t) { return absl::OkStatus(); });
  ASSERT_TRUE(scatter.Prepare().ok());
  for (uint32_t i : blocks) ASSERT_TRUE(scatter.Deliver(i, stored[i]).ok());
  const int64_t page = from.planes[0].page_stride_bytes;
  for (size_t plane = 0; plane < to.tensors.size(); ++plane) {
    for (int64_t p = 0; p < kPages; ++p) {
      const bool restored = p == 4 || p == 1 || p == 0 || p == 3;
      for (int64_t b = p * page; b < (p + 1) * page; ++b) {
        ASSERT_EQ(to.tensors[plane][b], restored ? from.tensors[plane][b] : 0xee)
            << plane << " " << b;
      }
    }
  }
}

TEST(CallerMemoryTest, CopyingChecksumsWhatChecksumOfDoes) {
  const BlockLayout layout = LayoutOf(SmallSpec(5));
  std::vector<uint8_t> from(layout.block_bytes), to(layout.block_bytes);
  FillContent({}, 7, from);
  EXPECT_EQ(CopyAndChecksum(layout, from.data(), to.data()), ChecksumOf(layout, from));
  EXPECT_EQ(from, to);
}

TEST(CallerMemoryTest, WhatDoesNotFitIsNamed) {
  const BlockLayout layout = LayoutOf(SmallSpec());
  uint8_t byte = 0;
  struct Row {
    CallerMemory memory;
    uint32_t blocks;
    const char* reason;
  };
  const Row rows[] = {
      {{}, 1, "MEMORY_FORM"},
      {{.buffers = {&byte}, .plan = nullptr, .pages = {}}, 2, "MEMORY_BUFFERS"},
      {{.buffers = {nullptr}, .plan = nullptr, .pages = {}}, 1, "MEMORY_BUFFERS"},
  };
  for (const Row& row : rows)
    EXPECT_EQ(RefusalReason(row.memory.Check(layout, row.blocks)), row.reason);
  EXPECT_EQ(RefusalReason(MakePagedPlan(layout, {}, 4).status()), "PLAN_PLANES");
  Paged engine(layout, 4, 1);
  EXPECT_EQ(RefusalReason(MakePagedPlan(layout, engine.planes, 3).status()), "PLAN_PAGE_TOKENS");
  const auto plan = *MakePagedPlan(layout, engine.planes, 4);
  EXPECT_EQ(
      RefusalReason(CallerMemory{.buffers = {}, .plan = plan, .pages = {-1}}.Check(layout, 1)),
      "MEMORY_PAGES");
  EXPECT_EQ(RefusalReason(CallerMemory{.buffers = {}, .plan = plan, .pages = {1}}.Check(layout, 2)),
            "MEMORY_PAGES");
}

TEST(PrefillRatesTest, NewerTokensCountMoreAndFewTellNothing) {
  const Fingerprint one = FingerprintOf(SmallSpec()), other = FingerprintOf(SmallSpec(64, 16));
  PrefillRates rates;
  rates.Add(one, limits::kPrefillTokensMin - 1, absl::Seconds(1));
  EXPECT_EQ(rates.PerToken(one), absl::ZeroDuration());
  rates.Add(one, 1000, absl::Seconds(1));
  EXPECT_EQ(rates.PerToken(one), absl::Milliseconds(1));
  EXPECT_EQ(rates.PerToken(other), absl::ZeroDuration());
  for (int i = 0; i < 100; ++i) rates.Add(one, 1000, absl::Seconds(3));
  EXPECT_GT(rates.PerToken(one), absl::Microseconds(2950));
  EXPECT_LT(rates.PerToken(one), absl::Milliseconds(3));
}

}  // namespace
}  // namespace reprise::client
