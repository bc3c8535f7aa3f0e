// The C ABI's hints, where nobody listens: what is refused before anything is sent, and what is an
// answer.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/c/reprise.h"

namespace {

constexpr int kInvalid = static_cast<int>(absl::StatusCode::kInvalidArgument);
constexpr int kUnavailable = static_cast<int>(absl::StatusCode::kUnavailable);
constexpr size_t kKeys = 3;
constexpr size_t kKeyBytes = 32;

class HintsAbiTest : public ::testing::Test {
 protected:
  HintsAbiTest() : keys_(kKeys * kKeyBytes) {
    for (size_t i = 0; i < keys_.size(); ++i) keys_[i] = static_cast<uint8_t>(i);
    // Nothing listens on the discard port.
    constexpr char kOptions[] = R"({"shards": ["127.0.0.1:9"], "timeout_ms": 300})";
    EXPECT_EQ(reprise_client_open(kOptions, &client_, &error_), REPRISE_OK) << error_.message;
    constexpr char kSpec[] = R"({"model": "m", "attention": "gqa", "dtype": "f32", "layers": 1,
                                 "kv_heads": 1, "head_dim": 64, "block_tokens": 16})";
    EXPECT_EQ(reprise_spec_open(client_, kSpec, &spec_, &error_), REPRISE_OK) << error_.message;
  }
  ~HintsAbiTest() override {
    reprise_spec_close(spec_);
    reprise_client_close(client_);
  }

  static reprise_hint Retaining() {
    return {.claim_id = "claim", .ttl_us = 1'000'000, .verb = REPRISE_HINT_RETAIN};
  }
  reprise_code Start(const reprise_hint& hint, reprise_op** op, size_t keys = kKeys) {
    return reprise_hint_start(client_, spec_, "session", keys > 0 ? keys_.data() : nullptr, keys,
                              &hint, 0, op, &error_);
  }
  // What a hint that makes no sense is told.
  std::string Refused(const reprise_hint& hint, size_t keys = kKeys) {
    reprise_op* op = nullptr;
    const reprise_code code = Start(hint, &op, keys);
    reprise_op_free(op);
    EXPECT_EQ(code, kInvalid) << error_.message;
    return error_.message;
  }

  std::vector<uint8_t> keys_;
  reprise_client* client_ = nullptr;
  reprise_spec* spec_ = nullptr;
  reprise_error error_ = {};
};

TEST_F(HintsAbiTest, ACacheThatIsDownIsAnAnswerWithAReason) {
  for (const reprise_hint& hint :
       {Retaining(), reprise_hint{.claim_id = "claim", .ttl_us = 1, .verb = REPRISE_HINT_PIN},
        reprise_hint{.claim_id = "claim", .verb = REPRISE_HINT_RELEASE},
        reprise_hint{.verb = REPRISE_HINT_EVICT, .first_block = kKeys - 1},
        reprise_hint{.verb = REPRISE_HINT_DEMOTE}}) {
    reprise_op* op = nullptr;
    ASSERT_EQ(Start(hint, &op), REPRISE_OK) << error_.message;
    ASSERT_EQ(reprise_op_wait(op, 30'000'000), 1);
    reprise_hint_result result;
    EXPECT_EQ(reprise_hint_result_take(op, &result, &error_), kUnavailable) << error_.message;
    EXPECT_EQ(result.shards, 0u);
    EXPECT_EQ(result.outcome, REPRISE_HINT_MISSING);
    EXPECT_EQ(result.blocks, 0u);
    EXPECT_STREQ(result.why, "");
    EXPECT_STRNE(error_.message, "");
    reprise_op_free(op);
  }
}

TEST_F(HintsAbiTest, OnlyAReleaseIsAboutNoKeys) {
  reprise_op* op = nullptr;
  ASSERT_EQ(Start({.claim_id = "claim", .verb = REPRISE_HINT_RELEASE}, &op, 0), REPRISE_OK)
      << error_.message;
  reprise_op_free(op);
  EXPECT_TRUE(absl::StrContains(Refused(Retaining(), 0), "keys"));
}

TEST_F(HintsAbiTest, EachFieldThatMakesNoSenseIsNamed) {
  reprise_hint hint = Retaining();
  hint.priority = 101;
  EXPECT_TRUE(absl::StrContains(Refused(hint), "priority = 101"));
  hint = Retaining();
  hint.ttl_us = 0;
  EXPECT_TRUE(absl::StrContains(Refused(hint), "ttl"));
  hint = Retaining();
  hint.claim_id = nullptr;
  EXPECT_TRUE(absl::StrContains(Refused(hint), "claim_id"));
  EXPECT_TRUE(absl::StrContains(Refused({.verb = REPRISE_HINT_EVICT, .first_block = kKeys}),
                                "first_block = 3"));
  for (const int32_t verb : {0, 6, -1}) {
    EXPECT_TRUE(absl::StrContains(Refused({.verb = verb}), absl::StrCat("verb is ", verb)));
  }
}

TEST_F(HintsAbiTest, WhatIsNullIsNamed) {
  const reprise_hint hint = Retaining();
  reprise_op* op = nullptr;
  const auto named = [&](const char* name, reprise_code code) {
    EXPECT_EQ(code, kInvalid) << name;
    EXPECT_TRUE(absl::StartsWith(error_.message, absl::StrCat(name, " is NULL"))) << error_.message;
  };
  named("client",
        reprise_hint_start(nullptr, spec_, nullptr, keys_.data(), kKeys, &hint, 0, &op, &error_));
  named("spec",
        reprise_hint_start(client_, nullptr, nullptr, keys_.data(), kKeys, &hint, 0, &op, &error_));
  named("keys",
        reprise_hint_start(client_, spec_, nullptr, nullptr, kKeys, &hint, 0, &op, &error_));
  named("hint",
        reprise_hint_start(client_, spec_, nullptr, keys_.data(), kKeys, nullptr, 0, &op, &error_));
  named("op", reprise_hint_start(client_, spec_, nullptr, keys_.data(), kKeys, &hint, 0, nullptr,
                                 &error_));
  named("result", reprise_hint_result_take(nullptr, nullptr, &error_));
}

TEST_F(HintsAbiTest, TheResultOfAnotherVerbIsRefused) {
  reprise_op* op = nullptr;
  ASSERT_EQ(Start(Retaining(), &op), REPRISE_OK) << error_.message;
  ASSERT_EQ(reprise_op_wait(op, 30'000'000), 1);
  reprise_store_result stored;
  EXPECT_EQ(reprise_store_result_take(op, &stored, &error_), kInvalid) << error_.message;
  reprise_hint_result result;
  EXPECT_EQ(reprise_hint_result_take(op, &result, &error_), kUnavailable) << "it is still there";
  reprise_op_free(op);
}

}  // namespace
