// The client's verbs under a codec: every form of caller memory, in host memory and on a fake GPU,
// over a cluster in this process.
#include "gtest/gtest.h"
#include "kernels/quantize/quantize.h"
#include "proto/types/refusal.h"
#include "tests/support/fake_gpu/fake_gpu.h"
#include "tests/unit/client/cpp/device_engine.h"
#include "tests/unit/client/cpp/fake_cluster.h"

namespace reprise::client {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::ConfigureFakeGpu;
using testing::DeviceEngine;
using testing::DeviceSlots;
using testing::FakeCluster;
using testing::Must;

constexpr char kSession[] = "user-1";

// K/V of two layers and three heads in bf16, two pages a block; random bits, NaN and all.
const kernels::EngineShape kShape{
    .name = "nhd", .layers = 2, .heads = 3, .row_data_bytes = 64, .page_tokens = 8, .pages = 20};

CacheSpec SpecWith(const std::string& codec) {
  CacheSpec spec;
  spec.model = "codec";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kBf16;
  spec.layers = kShape.layers;
  spec.kv_heads = kShape.heads;
  spec.head_dim = kShape.row_data_bytes / 2;
  spec.block_tokens = kShape.block_tokens;
  spec.codec = codec;
  return spec;
}

enum class Form { kHostBuffers, kHostPages, kGpuBuffers, kGpuPages };
constexpr Form kForms[] = {Form::kHostBuffers, Form::kHostPages, Form::kGpuBuffers,
                           Form::kGpuPages};

// One engine's K/V in every form. The engine's own host side is the oracle for pages.
class Memory {
 public:
  Memory(Form form, uint64_t seed)
      : form_(form), engine_(kShape, seed), slots_(engine_.layout().block_bytes, engine_.blocks()) {
    for (uint32_t i = 0; i < engine_.blocks(); ++i) {
      blocks_.push_back(engine_.Block(i));
      slots_.Put(i, blocks_[i]);
    }
  }

  uint32_t count() const { return engine_.blocks(); }
  const std::vector<uint8_t>& Before(uint32_t i) const { return blocks_[i]; }

  CallerMemory Caller() {
    CallerMemory memory;
    switch (form_) {
      case Form::kHostBuffers:
        for (auto& block : blocks_) memory.buffers.push_back(block.data());
        break;
      case Form::kGpuBuffers:
        memory.device = 0;
        for (const auto slot : slots_.All(0, count())) memory.buffers.push_back(slot.data());
        break;
      case Form::kHostPages:
        memory.pages = engine_.Memory().pages;
        memory.plan =
            Must(MakePagedPlan(engine_.layout(), engine_.host().plan().planes, kShape.page_tokens));
        break;
      case Form::kGpuPages:
        memory = engine_.Memory();
        break;
    }
    return memory;
  }

  // What is there now, where the caller gave it.
  std::vector<uint8_t> Now(uint32_t i) {
    switch (form_) {
      case Form::kHostBuffers:
        return blocks_[i];
      case Form::kGpuBuffers:
        return slots_.Get(i);
      case Form::kHostPages:
        return engine_.Block(i);
      case Form::kGpuPages:
        engine_.TakeFromDevice();
        return engine_.Block(i);
    }
    return {};
  }

 private:
  const Form form_;
  DeviceEngine engine_;
  DeviceSlots slots_;
  std::vector<std::vector<uint8_t>> blocks_;
};

class CodecTest : public ::testing::TestWithParam<const char*> {
 protected:
  CodecTest() {
    ConfigureFakeGpu({.deferred = true, .seed = 6});
    cluster_.emplace(2);
    client_ = cluster_->MakeClient();
    spec_ = Must(client_->OpenSpec(SpecWith(GetParam())));
  }

  StoreResult Store(Memory& from, const std::vector<BlockKey>& keys) {
    return Must(client_->Store(
        {.spec = spec_, .keys = keys, .session = kSession, .memory = from.Caller()}));
  }
  FetchResult Fetch(Memory& to, const std::vector<BlockKey>& keys) {
    const AcquireResult found =
        Must(client_->Acquire({.spec = spec_, .keys = keys, .session = kSession}));
    EXPECT_EQ(found.run->blocks(), keys.size()) << found.status;
    return Must(
        client_->Fetch(found.run, {.first = 0, .count = to.count(), .memory = to.Caller()}));
  }
  // What the codec makes of a block.
  std::vector<uint8_t> ThereAndBack(const std::vector<uint8_t>& block) const {
    std::vector<uint8_t> encoded(spec_->stored.block_bytes), back(block.size());
    kernels::EncodeBlock(*spec_->codec, block.data(), encoded.data());
    kernels::DecodeBlock(*spec_->codec, encoded.data(), back.data());
    return back;
  }

  std::optional<FakeCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::shared_ptr<const ClientSpec> spec_;
};

TEST_P(CodecTest, EncodedBlocksAreSmallerAndEveryFormOfMemoryGivesAndGetsTheSame) {
  EXPECT_LT(spec_->stored.block_bytes, spec_->layout.block_bytes * 3 / 4);
  for (const Form given : kForms) {
    for (const Form got : kForms) {
      SCOPED_TRACE(::testing::Message() << static_cast<int>(given) << static_cast<int>(got));
      Memory from(given, 1 + static_cast<uint64_t>(given)), to(got, 9);
      const auto keys = ChainNamed("form " + std::to_string(static_cast<int>(given)), from.count());
      const StoreResult stored = Store(from, keys);
      EXPECT_TRUE(stored.status.ok()) << stored.status;
      EXPECT_EQ(stored.stored + stored.present, keys.size());
      EXPECT_EQ(stored.bytes, stored.stored * spec_->stored.block_bytes);
      const FetchResult fetched = Fetch(to, keys);
      EXPECT_TRUE(fetched.status.ok()) << fetched.status;
      ASSERT_EQ(fetched.blocks, keys.size());
      EXPECT_EQ(fetched.bytes, keys.size() * spec_->stored.block_bytes);
      for (uint32_t i = 0; i < keys.size(); ++i) {
        EXPECT_EQ(to.Now(i), ThereAndBack(from.Before(i))) << i;
      }
    }
  }
}

TEST_P(CodecTest, AFlippedByteEndsTheRunAndNothingIsDecodedFromIt) {
  constexpr uint32_t kCorrupt = 3;
  for (const Form got : kForms) {
    Memory from(Form::kHostBuffers, 1), to(got, 9);
    const auto keys = ChainNamed("flipped", from.count());
    Store(from, keys);
    for (auto& shard : cluster_->shards())
      shard->trouble.corrupt_block = static_cast<int>(kCorrupt);
    const std::vector<uint8_t> before = to.Now(kCorrupt);
    const FetchResult fetched = Fetch(to, keys);
    EXPECT_EQ(fetched.blocks, kCorrupt);
    EXPECT_EQ(fetched.corrupt, 1u);
    EXPECT_EQ(to.Now(kCorrupt), before) << static_cast<int>(got);
    for (auto& shard : cluster_->shards()) shard->trouble.corrupt_block = -1;
  }
}

TEST_P(CodecTest, ItsBlocksAreNoOtherSpecs) {
  Memory from(Form::kHostBuffers, 1);
  const auto keys = ChainNamed("apart", from.count());
  ASSERT_EQ(Store(from, keys).stored, keys.size());
  const auto lossless = Must(client_->OpenSpec(SpecWith("")));
  const AcquireResult found =
      Must(client_->Acquire({.spec = lossless, .keys = keys, .session = kSession}));
  EXPECT_EQ(found.run->blocks(), 0u);
}

TEST_P(CodecTest, ABufferThatItCannotReadIsRefused) {
  Memory from(Form::kHostBuffers, 1);
  CallerMemory memory = from.Caller();
  memory.buffers[2] += 1;
  const auto status = client_
                          ->Store({.spec = spec_,
                                   .keys = ChainNamed("unaligned", from.count()),
                                   .session = kSession,
                                   .memory = memory})
                          .status();
  EXPECT_EQ(RefusalReason(status), "MEMORY_BUFFERS") << status;
}

INSTANTIATE_TEST_SUITE_P(Codecs, CodecTest,
                         ::testing::Values("fp8_e4m3", "int8", "int4", "int4_g64"));

}  // namespace
}  // namespace reprise::client
