#include "service/journal/record_codec.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "proto/types/limits.h"
#include "proto/wire/spec.h"
#include "reprise/disk/v1/journal.pb.h"
#include "tests/unit/service/journal/kept_samples.h"

namespace reprise::shard {
namespace {

namespace v1 = disk::v1;

std::vector<std::string> Encoded(const KeptBatch& batch) {
  std::vector<std::string> messages;
  EXPECT_TRUE(EncodeBatch(batch, [&](absl::string_view message) {
                messages.emplace_back(message);
                return absl::OkStatus();
              }).ok());
  return messages;
}

std::optional<DecodedBatch> Decoded(const std::string& message) {
  return DecodeBatch({reinterpret_cast<const uint8_t*>(message.data()), message.size()});
}

v1::Batch SampleMessage() {
  v1::Batch batch;
  v1::Space& space = *batch.add_spaces();
  space.set_number(3);
  space.set_tenant("tenant");
  space.set_fingerprint(std::string(32, 'f'));
  *space.mutable_spec() = wire::ToMessage(testing::SmallSpec());
  space.set_block_bytes(512);
  space.set_section_bytes(256);
  v1::Block& block = *batch.add_blocks();
  block.set_space(3);
  block.mutable_slot()->set_extent(4);
  block.mutable_slot()->set_index(5);
  block.set_key(std::string(32, 'k'));
  block.set_parent(std::string(32, 'p'));
  block.set_checksum(std::string(16, 'c'));
  block.set_depth(6);
  block.set_token_position(7);
  block.set_session_id("session");
  block.add_token_ids(8);
  v1::Claim& claim = *batch.add_claims();
  claim.set_space(3);
  claim.set_name("claim");
  claim.set_rank(255);
  claim.set_ends_unix_ms(9);
  claim.set_rests(std::string(32, 'r'));
  claim.set_ahead(std::string(32, 'a') + std::string(32, 'b'));
  return batch;
}

TEST(RecordCodecTest, BatchesComeBackAsTheyWere) {
  for (const KeptBatch& batch : SampleBatches()) {
    const std::vector<std::string> messages = Encoded(batch);
    ASSERT_EQ(messages.size(), 1);
    const auto decoded = Decoded(messages[0]);
    ASSERT_TRUE(decoded.has_value());
    EXPECT_TRUE(decoded->batch == batch);
    EXPECT_EQ(decoded->skipped, 0);
  }
}

TEST(RecordCodecTest, ABatchThatSaysNothingIsNoMessage) {
  EXPECT_TRUE(Encoded(KeptBatch{}).empty());
}

// Written record by record, they are what protobuf itself reads and writes.
TEST(RecordCodecTest, MessagesAreThoseOfTheSchema) {
  v1::Batch message;
  ASSERT_TRUE(message.ParseFromString(Encoded(SampleBatches()[0])[0]));
  EXPECT_EQ(message.spaces_size(), 2);
  EXPECT_EQ(message.blocks_size(), 6);
  EXPECT_TRUE(message.GetReflection()->GetUnknownFields(message).empty());
  EXPECT_EQ(message.spaces(1).tenant(), SampleSpace(7).tenant.name);

  const auto decoded = Decoded(SampleMessage().SerializeAsString());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->skipped, 0);
  const KeptBlock& block = decoded->batch.blocks.at(0);
  EXPECT_EQ(block.space, 3);
  EXPECT_EQ(block.slot, (SlotRef{.extent = 4, .index = 5}));
  EXPECT_EQ(block.key.bytes[31], 'k');
  EXPECT_EQ(block.parent->bytes[31], 'p');
  EXPECT_EQ(block.checksum.bytes[15], 'c');
  EXPECT_EQ(block.depth, 6);
  EXPECT_EQ(block.token_position, 7);
  EXPECT_EQ(block.session_id, "session");
  EXPECT_EQ(block.token_ids, std::vector<uint32_t>{8});
  const KeptClaim& claim = decoded->batch.claims.at(0);
  EXPECT_EQ(claim.name, "claim");
  EXPECT_EQ(claim.rank, 255);
  EXPECT_EQ(absl::ToUnixMillis(claim.ends), 9);
  EXPECT_EQ(claim.rests->bytes[0], 'r');
  EXPECT_EQ(claim.ahead.size(), 2);
  EXPECT_EQ(decoded->batch.spaces.at(0).spec.model, "test-model");
}

TEST(RecordCodecTest, BlocksOfOneSessionNameItOnce) {
  KeptBatch batch;
  for (uint32_t i = 0; i < 3; ++i) {
    batch.blocks.push_back(SampleBlock(1, {0, i}, i));
    batch.blocks.back().session_id = "the-session-of-all";
  }
  batch.blocks.push_back(SampleBlock(1, {0, 3}, 3));
  batch.blocks.back().session_id.clear();
  const std::string message = Encoded(batch).at(0);
  EXPECT_EQ(message.find("the-session-of-all"), message.rfind("the-session-of-all"));
  EXPECT_TRUE(Decoded(message)->batch == batch);
}

TEST(RecordCodecTest, LongBatchesAreCutAndSayTheSame) {
  KeptBatch batch;
  batch.spaces = {SampleSpace(1)};
  for (uint32_t i = 0; i < 300; ++i) {
    batch.blocks.push_back(SampleBlock(1, {0, i}, i));
    batch.blocks.back().session_id = "one";
    batch.blocks.back().token_ids.assign(limits::kBlockTokensMax, 5'000'000 + i);
  }
  batch.gone = {{0, 7}};
  KeptClaim claim = SampleClaim(1, 0);
  for (uint64_t i = 0; i < limits::kPromptBlocksMax; ++i) claim.ahead.push_back(SampleKey(i));
  batch.claims = {claim, claim};
  batch.closed = true;

  const std::vector<std::string> messages = Encoded(batch);
  EXPECT_GT(messages.size(), 5);
  KeptBatch together;
  for (const std::string& message : messages) {
    EXPECT_LT(message.size(), limits::kJournalFrameBytesMax);
    EXPECT_FALSE(together.closed) << "something comes after the end";
    const auto decoded = Decoded(message);
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(decoded->skipped, 0);
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(together.spaces, decoded->batch.spaces);
    append(together.blocks, decoded->batch.blocks);
    append(together.gone, decoded->batch.gone);
    append(together.claims, decoded->batch.claims);
    together.closed = decoded->batch.closed;
  }
  EXPECT_TRUE(together == batch);
}

TEST(RecordCodecTest, WhatTheDiskRefusesEndsIt) {
  KeptBatch batch;
  for (uint32_t i = 0; i < 20'000; ++i) batch.blocks.push_back(SampleBlock(1, {0, i}, i));
  int calls = 0;
  const absl::Status status = EncodeBatch(batch, [&](absl::string_view) {
    ++calls;
    return absl::InternalError("full");
  });
  EXPECT_EQ(status.message(), "full");
  EXPECT_EQ(calls, 1);
}

struct Nonsense {
  const char* what;
  std::function<void(v1::Batch&)> change;
  int spaces = 1, blocks = 1, claims = 1;
};

TEST(RecordCodecTest, RecordsThatMakeNoSenseAreSkippedAloneAndCounted) {
  const std::vector<Nonsense> nonsense = {
      {"a tenant too long",
       [](v1::Batch& b) {
         b.mutable_spaces(0)->set_tenant(std::string(limits::kTenantBytesMax + 1, 't'));
       },
       0, 1, 1},
      {"half a fingerprint",
       [](v1::Batch& b) { b.mutable_spaces(0)->set_fingerprint(std::string(16, 'f')); }, 0, 1, 1},
      {"no spec", [](v1::Batch& b) { b.mutable_spaces(0)->clear_spec(); }, 0, 1, 1},
      {"a spec that is refused",
       [](v1::Batch& b) { b.mutable_spaces(0)->mutable_spec()->set_layers(0); }, 0, 1, 1},
      {"a data type of the future",
       [](v1::Batch& b) {
         b.mutable_spaces(0)->mutable_spec()->set_dtype(static_cast<reprise::v1::DataType>(99));
       },
       0, 1, 1},
      {"no sections", [](v1::Batch& b) { b.mutable_spaces(0)->set_section_bytes(0); }, 0, 1, 1},
      {"sections longer than blocks",
       [](v1::Batch& b) { b.mutable_spaces(0)->set_section_bytes(513); }, 0, 1, 1},
      {"blocks too long",
       [](v1::Batch& b) { b.mutable_spaces(0)->set_block_bytes(limits::kBlockBytesMax + 1); }, 0, 1,
       1},
      {"a short key", [](v1::Batch& b) { b.mutable_blocks(0)->set_key(std::string(31, 'k')); }, 1,
       0, 1},
      {"no key", [](v1::Batch& b) { b.mutable_blocks(0)->clear_key(); }, 1, 0, 1},
      {"a long parent", [](v1::Batch& b) { b.mutable_blocks(0)->set_parent(std::string(33, 'p')); },
       1, 0, 1},
      {"a short checksum", [](v1::Batch& b) { b.mutable_blocks(0)->set_checksum("c"); }, 1, 0, 1},
      {"no slot", [](v1::Batch& b) { b.mutable_blocks(0)->clear_slot(); }, 1, 0, 1},
      {"a session too long",
       [](v1::Batch& b) {
         b.mutable_blocks(0)->set_session_id(std::string(limits::kNameBytesMax + 1, 's'));
       },
       1, 0, 1},
      {"too many tokens",
       [](v1::Batch& b) {
         for (uint32_t i = 0; i < limits::kBlockTokensMax; ++i) {
           b.mutable_blocks(0)->add_token_ids(i);
         }
       },
       1, 0, 1},
      {"a claim's name too long",
       [](v1::Batch& b) {
         b.mutable_claims(0)->set_name(std::string(limits::kNameBytesMax + 1, 'n'));
       },
       1, 1, 0},
      {"a rank too high", [](v1::Batch& b) { b.mutable_claims(0)->set_rank(256); }, 1, 1, 0},
      {"half a key to rest on", [](v1::Batch& b) { b.mutable_claims(0)->set_rests("r"); }, 1, 1, 0},
      {"half a key ahead", [](v1::Batch& b) { b.mutable_claims(0)->mutable_ahead()->pop_back(); },
       1, 1, 0},
      {"too many keys ahead",
       [](v1::Batch& b) {
         std::string ahead;
         for (uint64_t i = 0; i <= limits::kPromptBlocksMax; ++i) {
           const BlockKey key = SampleKey(i);
           ahead.append(key.bytes.begin(), key.bytes.end());
         }
         b.mutable_claims(0)->set_ahead(ahead);
       },
       1, 1, 0},
  };
  for (const Nonsense& one : nonsense) {
    SCOPED_TRACE(one.what);
    v1::Batch message = SampleMessage();
    one.change(message);
    const auto decoded = Decoded(message.SerializeAsString());
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(decoded->skipped, 1);
    EXPECT_EQ(decoded->batch.spaces.size(), one.spaces);
    EXPECT_EQ(decoded->batch.blocks.size(), one.blocks);
    EXPECT_EQ(decoded->batch.claims.size(), one.claims);
  }
}

TEST(RecordCodecTest, WhatIsJustWithinTheLimitsIsKept) {
  v1::Batch message = SampleMessage();
  message.mutable_spaces(0)->set_tenant(std::string(limits::kTenantBytesMax, 't'));
  message.mutable_blocks(0)->set_session_id(std::string(limits::kNameBytesMax, 's'));
  message.mutable_blocks(0)->mutable_token_ids()->Resize(limits::kBlockTokensMax, 1);
  message.mutable_claims(0)->set_name(std::string(limits::kNameBytesMax, 'n'));
  const auto decoded = Decoded(message.SerializeAsString());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->skipped, 0);
  EXPECT_EQ(decoded->batch.blocks.at(0).token_ids.size(), limits::kBlockTokensMax);
}

// It is where something else was: that is not there any more.
TEST(RecordCodecTest, TheSlotOfABlockThatMakesNoSenseIsGone) {
  v1::Batch message = SampleMessage();
  message.mutable_blocks(0)->set_key("short");
  const auto decoded = Decoded(message.SerializeAsString());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->batch.gone, (std::vector<SlotRef>{{.extent = 4, .index = 5}}));
}

// A session is that of the block before, whatever else that block is.
TEST(RecordCodecTest, ASkippedBlockStillTellsTheNextOnesSession) {
  v1::Batch message = SampleMessage();
  *message.add_blocks() = message.blocks(0);
  message.mutable_blocks(0)->set_key("short");
  message.mutable_blocks(1)->clear_session_id();
  EXPECT_EQ(Decoded(message.SerializeAsString())->batch.blocks.at(0).session_id, "session");
}

TEST(RecordCodecTest, TextsNeedNotBeUtf8) {
  KeptBatch batch;
  batch.spaces = {SampleSpace(1)};
  batch.spaces[0].tenant.name = "\xff\xfe";
  batch.blocks = {SampleBlock(1, {0, 0}, 1)};
  batch.blocks[0].session_id = "\xc3";
  batch.claims = {SampleClaim(1, 1)};
  batch.claims[0].name = "\x80";
  EXPECT_TRUE(Decoded(Encoded(batch).at(0))->batch == batch);
}

// As a later version writes them.
TEST(RecordCodecTest, FieldsOfTheFutureArePassedOver) {
  v1::Batch message = SampleMessage();
  const KeptBatch expected = Decoded(message.SerializeAsString())->batch;
  const auto add = [](google::protobuf::Message& to) {
    google::protobuf::UnknownFieldSet& unknown = *to.GetReflection()->MutableUnknownFields(&to);
    unknown.AddVarint(1000, 1);
    unknown.AddLengthDelimited(1001, "future");
    unknown.AddFixed64(1002, 2);
    unknown.AddGroup(1003)->AddFixed32(1, 3);
  };
  add(*message.mutable_spaces(0));
  add(*message.mutable_blocks(0));
  add(*message.mutable_blocks(0)->mutable_slot());
  add(*message.mutable_claims(0));
  auto decoded = Decoded(message.SerializeAsString());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_TRUE(decoded->batch == expected);
  EXPECT_EQ(decoded->skipped, 0);

  // Records of a kind that is not known are counted.
  add(message);
  decoded = Decoded(message.SerializeAsString());
  ASSERT_TRUE(decoded.has_value());
  EXPECT_TRUE(decoded->batch == expected);
  EXPECT_EQ(decoded->skipped, 4);
}

TEST(RecordCodecTest, BytesThatAreNoMessageAreNone) {
  for (const std::string& bytes :
       {std::string("\x0a\x05zz"), std::string("\x12"), std::string("\x07"), std::string(1, '\0'),
        std::string("\x12\xff\xff\xff\xff\x0f"), std::string("\x28"), std::string("\x0c")}) {
    EXPECT_FALSE(Decoded(bytes).has_value()) << ::testing::PrintToString(bytes);
  }
  EXPECT_TRUE(Decoded("").has_value());
}

TEST(RecordCodecTest, ManyEmptyRecordsTakeNoMemory) {
  std::string message;
  for (int i = 0; i < 100'000; ++i) message += std::string("\x12\0", 2);
  const auto decoded = Decoded(message);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->skipped, 100'000);
  EXPECT_EQ(decoded->batch.blocks.capacity(), 0);
  EXPECT_EQ(decoded->batch.gone.capacity(), 0);
}

}  // namespace
}  // namespace reprise::shard
