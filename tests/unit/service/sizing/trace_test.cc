#include "service/sizing/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::sizing {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class TraceTest : public testing::Test {
 protected:
  absl::StatusOr<Trace> Read(const std::string& text, TraceOptions options = {}) {
    path_ = absl::StrCat(testing::TempDir(), "/trace_test_", getpid(), ".jsonl");
    std::ofstream(path_) << text;
    return ReadTrace(path_, options);
  }
  void TearDown() override { std::remove(path_.c_str()); }

  std::string path_;
};

TEST_F(TraceTest, HashIdsAreBlocks) {
  const auto trace = Read(R"({"timestamp": 5, "hash_ids": [0, 1, 2], "input_length": 1400}
{"timestamp": 2000.5, "hash_ids": [0, 1, 7]}

{"timestamp": 3000, "hash_ids": []})",
                          {.trace_block_tokens = 512});
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->block_tokens, 512u);
  EXPECT_EQ(trace->name, path_.substr(path_.rfind('/') + 1));
  ASSERT_EQ(trace->requests.size(), 3u);
  const Request& first = trace->requests[0];
  EXPECT_EQ(first.at, absl::Milliseconds(5));
  EXPECT_EQ(first.prompt_tokens, 3u * 512);
  EXPECT_EQ(first.blocks, (std::vector<uint64_t>{KeyOfId(0), KeyOfId(1), KeyOfId(2)}));
  EXPECT_EQ(trace->requests[1].at, absl::Microseconds(2'000'500));
  EXPECT_EQ(trace->requests[1].blocks[1], first.blocks[1]);
  EXPECT_NE(trace->requests[1].blocks[2], first.blocks[2]);
  EXPECT_TRUE(trace->requests[2].blocks.empty());
}

TEST_F(TraceTest, TokensAreCutIntoBlocksThatStandForAllBefore) {
  const auto trace = Read(R"({"token_ids": [1, 2, 3, 4, 5]}
{"token_ids": [1, 2, 3, 4, 6, 7]}
{"token_ids": [9, 2, 3, 4]}
{"token_ids": [8]})",
                          {.block_tokens = 2});
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->block_tokens, 2u);
  const std::vector<Request>& requests = trace->requests;
  EXPECT_EQ(requests[0].prompt_tokens, 5u);
  ASSERT_EQ(requests[0].blocks.size(), 2u);
  ASSERT_EQ(requests[1].blocks.size(), 3u);
  ASSERT_EQ(requests[2].blocks.size(), 2u);
  EXPECT_EQ(requests[0].blocks[0], requests[1].blocks[0]);
  EXPECT_EQ(requests[0].blocks[1], requests[1].blocks[1]);
  EXPECT_NE(requests[0].blocks[0], requests[2].blocks[0]);
  EXPECT_NE(requests[0].blocks[1], requests[2].blocks[1]) << "another block came before";
  EXPECT_TRUE(requests[3].blocks.empty());
}

TEST_F(TraceTest, TimeNeverGoesBackAndPassesWhereNobodySaysSo) {
  const auto trace = Read(R"({"timestamp": 7000, "hash_ids": [0]}
{"hash_ids": [0]}
{"timestamp": 10, "hash_ids": [0]})");
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->requests[0].at, absl::Seconds(7));
  EXPECT_EQ(trace->requests[1].at, absl::Seconds(7) + limits::kReuseApart);
  EXPECT_EQ(trace->requests[2].at, trace->requests[1].at);
}

struct BadLine {
  const char* name;
  std::string text;
  int line;
  const char* says;
};

class BadTrace : public TraceTest, public testing::WithParamInterface<BadLine> {};

TEST_P(BadTrace, IsRefusedByFileAndLine) {
  const auto trace = Read(GetParam().text);
  ASSERT_TRUE(absl::IsInvalidArgument(trace.status())) << trace.status();
  EXPECT_EQ(RefusalReason(trace.status()), "TRACE_LINE");
  EXPECT_THAT(std::string(trace.status().message()),
              AllOf(HasSubstr(absl::StrCat(path_, ":", GetParam().line, ": ")),
                    HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadTrace,
    testing::Values(
        BadLine{"Json", "{\"hash_ids\": [1]}\n{\"hash_ids\": [1,", 2, "no JSON"},
        BadLine{"NoObject", "[1, 2]", 1, "no JSON object"},
        BadLine{"NoIds", "{\"timestamp\": 1}", 1, "either hash_ids or token_ids"},
        BadLine{"BothIds", "{\"hash_ids\": [], \"token_ids\": []}", 1, "either"},
        BadLine{"Mixed", "{\"hash_ids\": [1]}\n\n{\"token_ids\": [1]}", 3, "other ids"},
        BadLine{"IdsNoList", "{\"hash_ids\": 3}", 1, "hash_ids is no list"},
        BadLine{"NegativeId", "{\"hash_ids\": [0, -1]}", 1, "hash_ids[1] is -1"},
        BadLine{"WordId", "{\"hash_ids\": [\"a\"]}", 1, "hash_ids[0] is \"a\""},
        BadLine{"FractionId", "{\"token_ids\": [0, 1.5]}", 1, "token_ids[1] is 1.5"},
        BadLine{"LargeToken", "{\"token_ids\": [4294967296]}", 1, "from 0 to 4294967295"},
        BadLine{"NoUtf8Id", "{\"hash_ids\": [\"\xe9\"]}", 1, "no JSON"},
        BadLine{"TimeWord", "{\"timestamp\": \"now\", \"hash_ids\": [1]}", 1,
                "timestamp is \"now\""},
        BadLine{"TimeNegative", "{\"timestamp\": -1, \"hash_ids\": [1]}", 1, "timestamp is -1"},
        BadLine{"Reparented", "{\"hash_ids\": [0, 1, 2]}\n{\"hash_ids\": [0, 2]}", 2,
                "hash_ids[1] is 2, which followed another block"},
        BadLine{"Twice", "{\"hash_ids\": [4, 4]}", 1, "hash_ids[1] is 4"},
        BadLine{"Nul", std::string("{\"hash_ids\": [1]\0}", 18), 1, "no JSON"},
        BadLine{"Long", "{\"hash_ids\": [1]}\n" + std::string(kTraceLineBytesMax + 1, ' '), 2,
                "longer than"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(TraceTest, TooManyTokensAreRefused) {
  std::string text = "{\"token_ids\": [0";
  for (size_t i = 0; i < kTraceTokensMax; ++i) text += ",0";
  const auto trace = Read(text + "]}");
  ASSERT_TRUE(absl::IsInvalidArgument(trace.status())) << trace.status();
  EXPECT_THAT(std::string(trace.status().message()), HasSubstr(absl::StrCat(kTraceTokensMax)));
}

TEST_F(TraceTest, AFileWithoutRequestsIsRefused) {
  for (const char* text : {"", "\n  \n"}) {
    const auto trace = Read(text);
    EXPECT_TRUE(absl::IsInvalidArgument(trace.status())) << trace.status();
    EXPECT_EQ(RefusalReason(trace.status()), "TRACE_EMPTY");
  }
}

TEST_F(TraceTest, AFileThatCannotBeReadIsNamed) {
  for (const std::string& path : {std::string("/nowhere/trace"), testing::TempDir()}) {
    const auto trace = ReadTrace(path, {});
    EXPECT_TRUE(absl::IsNotFound(trace.status())) << trace.status();
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(path));
  }
}

}  // namespace
}  // namespace reprise::sizing
