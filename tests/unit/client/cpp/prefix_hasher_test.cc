#include "client/cpp/prefix_hasher.h"

#include <fstream>
#include <map>
#include <string>
#include <tuple>

#include "client/cpp/sglang_keys.h"
#include "client/cpp/vllm_keys.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "rapidcheck.h"

namespace reprise::client {
namespace {

using Json = nlohmann::json;

Json Vectors() {
  std::ifstream file(REPRISE_KEY_VECTORS);
  return Json::parse(file);
}

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<std::string> Hex(const std::vector<BlockKey>& keys) {
  std::vector<std::string> hex;
  for (const BlockKey& key : keys) hex.push_back(ToHex(key));
  return hex;
}

TEST(PrefixHasherTest, AgreesWithThePublishedVectors) {
  const Json vectors = Vectors();
  ASSERT_GE(vectors["reprise"].size(), 10u);
  for (const Json& v : vectors["reprise"]) {
    SCOPED_TRACE(v["name"].get<std::string>());
    const auto tokens = v["tokens"].get<std::vector<uint32_t>>();
    const auto salt = FromHex(v["salt_hex"]);
    const auto extra = FromHex(v["extra_hex"]);
    KeyContext context{.parent = std::nullopt, .salt = salt, .extra = extra};
    if (!v["parent"].is_null()) context.parent = *BlockKeyFromHex(v["parent"].get<std::string>());
    EXPECT_EQ(Hex(PrefixKeys(tokens, v["block_tokens"], context)),
              v["keys"].get<std::vector<std::string>>());
  }
}

TEST(PrefixHasherTest, AgreesWithVllm) {
  const Json vectors = Vectors();
  ASSERT_GE(vectors["vllm"].size(), 3u);
  for (const Json& v : vectors["vllm"]) {
    SCOPED_TRACE(v["name"].get<std::string>());
    VllmKeyContext context{.seed = v["seed"], .cache_salt = std::nullopt};
    if (!v["cache_salt"].is_null()) context.cache_salt = v["cache_salt"].get<std::string>();
    EXPECT_EQ(ToHex(VllmRootKey(context.seed)), v["root"].get<std::string>());
    EXPECT_EQ(Hex(VllmKeys(v["tokens"].get<std::vector<uint32_t>>(), v["block_tokens"], context)),
              v["keys"].get<std::vector<std::string>>());
  }
}

TEST(PrefixHasherTest, AgreesWithSglang) {
  const Json vectors = Vectors();
  ASSERT_GE(vectors["sglang"].size(), 5u);
  for (const Json& v : vectors["sglang"]) {
    SCOPED_TRACE(v["name"].get<std::string>());
    const SglangKeyContext context{.extra_key = v["extra_key"], .cache_salt = v["cache_salt"]};
    EXPECT_EQ(Hex(SglangKeys(v["tokens"].get<std::vector<uint32_t>>(), v["page_tokens"], context)),
              v["keys"].get<std::vector<std::string>>());
  }
}

TEST(PrefixHasherTest, DefaultSeedIsVllms) {
  EXPECT_EQ(ToHex(VllmRootKey(VllmKeyContext().seed)),
            "9bd96a485ad84efdafb72ee48a1d7a69bcead0f8f0433173941b276b9581eef0");
}

TEST(PrefixHasherTest, LoraNameAndSaltOfTheSameTextAreDifferentKeys) {
  const std::vector<uint32_t> tokens(16, 1);
  const std::vector<uint8_t> text = {'t', 'e', 'a', 'm'};
  EXPECT_NE(PrefixKeys(tokens, 16, {.salt = text}), PrefixKeys(tokens, 16, {.extra = text}));
}

TEST(PrefixHasherTest, ContinuingFromAKeyEqualsOnePass) {
  EXPECT_TRUE(rc::check([](const std::vector<uint8_t>& salt, const std::vector<uint8_t>& extra) {
    const auto tokens =
        *rc::gen::container<std::vector<uint32_t>>(48, rc::gen::arbitrary<uint32_t>());
    const auto whole = PrefixKeys(tokens, 8, {.salt = salt, .extra = extra});
    const size_t cut = *rc::gen::inRange<size_t>(1, 5);
    const auto rest = PrefixKeys(std::span(tokens).subspan(cut * 8), 8,
                                 {.parent = whole[cut - 1], .salt = salt, .extra = extra});
    RC_ASSERT(std::equal(rest.begin(), rest.end(), whole.begin() + cut, whole.end()));
  }));
}

// Inputs are drawn from a small alphabet, so that one's tokens look like another's lengths, extra
// or salt.
TEST(PrefixHasherTest, TwoInputsNeverHaveOneEncoding) {
  using Input = std::tuple<std::vector<uint32_t>, std::vector<uint8_t>, std::vector<uint8_t>, int>;
  std::map<std::vector<uint8_t>, Input> seen;
  EXPECT_TRUE(rc::check([&seen] {
    const auto count = *rc::gen::inRange<size_t>(1, 5);
    const auto tokens = *rc::gen::container<std::vector<uint32_t>>(
        count, rc::gen::element<uint32_t>(0, 1, 4, 0x63, 0x01010101));
    const auto bytes =
        rc::gen::container<std::vector<uint8_t>>(rc::gen::element<uint8_t>(0, 1, 4, 0x63));
    const auto salt = *rc::gen::resize(9, bytes);
    const auto extra = *rc::gen::resize(9, bytes);
    const int parent = *rc::gen::inRange(-1, 3);  // -1: a first block; 0: the all-zero key
    KeyContext context{.parent = std::nullopt, .salt = salt, .extra = extra};
    if (parent >= 0) {
      context.parent.emplace();
      context.parent->bytes.fill(static_cast<uint8_t>(parent));
    }
    // Salt is part of the first block only.
    const Input input{tokens, parent < 0 ? salt : std::vector<uint8_t>(), extra, parent};
    const auto [at, fresh] = seen.emplace(EncodeKeyInput(tokens, context), input);
    RC_ASSERT(fresh || at->second == input);
  }));
  EXPECT_GT(seen.size(), 50u);
}

TEST(PrefixHasherTest, ABlockOf16TokensIsTwoCompressions) {
  const std::vector<uint32_t> tokens(16, 1);
  constexpr size_t kShaPaddingBytes = 9;
  EXPECT_LE(EncodeKeyInput(tokens, {}).size() + kShaPaddingBytes, 128u);
}

}  // namespace
}  // namespace reprise::client
