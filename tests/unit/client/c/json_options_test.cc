#include "client/c/json_options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reprise::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(JsonOptionsTest, EveryClientOptionIsRead) {
  const auto options = ClientOptionsFromJson(
      R"({"router": ["a:1", "b:2"], "name": "w", "timeout_ms": 70, "threads": 2,
          "lanes": ["stream", "view"], "gpu": 0, "nccl_library": "/opt/libnccl.so.2"})");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->routers, ElementsAre("a:1", "b:2"));
  EXPECT_EQ(options->name, "w");
  EXPECT_EQ(options->timeout, absl::Milliseconds(70));
  EXPECT_EQ(options->threads, 2u);
  EXPECT_THAT(options->lanes, ElementsAre(LaneKind::kStream, LaneKind::kView));
  EXPECT_EQ(options->gpu, std::optional<int>(0));
  EXPECT_EQ(options->nccl_library, "/opt/libnccl.so.2");
  EXPECT_THAT(ClientOptionsFromJson(R"({"router": "a:1"})")->routers, ElementsAre("a:1"));
  EXPECT_EQ(ClientOptionsFromJson(R"({"router": "a:1"})")->gpu, std::nullopt);
}

TEST(JsonOptionsTest, AnUnknownMemberIsRefusedWithTheNearestOne) {
  EXPECT_THAT(ClientOptionsFromJson(R"({"routers": "a:1"})").status().message(),
              HasSubstr("\"router\""));
  EXPECT_THAT(ClientOptionsFromJson(R"({"time_ms": 5})").status().message(),
              HasSubstr("\"timeout_ms\""));
  EXPECT_THAT(CacheSpecFromJson(R"({"kv_head": 5})").status().message(), HasSubstr("\"kv_heads\""));
}

TEST(JsonOptionsTest, WhatIsOfAnotherTypeIsRefusedByName) {
  for (const char* text :
       {R"({"layers": -1})", R"({"layers": "2"})", R"({"layers": 2.5})", R"({"model": 7})",
        R"({"dtype": "bf17"})", R"({"attention": "mha"})", "[]", "", "{"}) {
    const auto spec = CacheSpecFromJson(text);
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status())) << text << " " << spec.status();
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ClientOptionsFromJson(R"({"lanes": ["vew"]})").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ClientOptionsFromJson(R"({"timeout_ms": 0})").status()));
}

TEST(JsonOptionsTest, ASpecIsReadFieldByField) {
  const auto spec = CacheSpecFromJson(
      R"({"model": "m", "attention": "mla", "dtype": "f16", "layers": 2, "head_dim": 576,
          "block_tokens": 64, "tensor_parallel_size": 1, "rope_digest": "r", "key_scheme": "k"})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->attention, AttentionKind::kMla);
  EXPECT_EQ(spec->dtype, DataType::kF16);
  EXPECT_EQ(spec->head_dim, 576u);
  EXPECT_EQ(spec->key_scheme, "k");
  EXPECT_EQ(spec->tensor_parallel_size, 1u);
}

}  // namespace
}  // namespace reprise::client
