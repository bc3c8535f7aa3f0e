#include "cluster/membership/members_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"

namespace reprise::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Complaint(absl::string_view text) {
  const auto members = ParseMembersFile(text);
  EXPECT_EQ(members.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(members.status().message());
}

TEST(MembersFileTest, MembersComeSortedByIdWithWeightOneUnlessGiven) {
  const auto members = ParseMembersFile(R"(
shards:
  - id: shard-1
    address: "[::1]:7002"
    weight: 2.5
  - {id: shard-0, address: "127.0.0.1:7001"}
)");
  ASSERT_TRUE(members.ok()) << members.status();
  EXPECT_THAT(*members, ElementsAre(Member{{"shard-0"}, "127.0.0.1:7001", 1.0},
                                    Member{{"shard-1"}, "[::1]:7002", 2.5}));
}

TEST(MembersFileTest, NothingToReadIsNoMembers) {
  for (absl::string_view text : {"", "\n\n", "# none yet\n", "shards:\n", "shards: []\n", "{}"}) {
    const auto members = ParseMembersFile(text);
    ASSERT_TRUE(members.ok()) << text << ": " << members.status();
    EXPECT_TRUE(members->empty());
  }
}

TEST(MembersFileTest, AnUnknownKeyIsRefusedWithTheNearestValidOneAndItsLine) {
  EXPECT_THAT(Complaint("shard:\n  - {id: a, address: \"h:1\"}\n"),
              AllOf(HasSubstr("\"shard\""), HasSubstr("did you mean \"shards\"")));
  EXPECT_THAT(Complaint("shards:\n  - {id: a, adress: \"h:1\"}\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("did you mean \"address\"")));
  EXPECT_THAT(Complaint("shards:\n  - {id: a, address: \"h:1\", wieght: 1}\n"),
              HasSubstr("did you mean \"weight\""));
}

TEST(MembersFileTest, EachIllFormedFieldIsNamedWithItsValue) {
  EXPECT_THAT(Complaint("shards: [{address: \"h:1\"}]"), HasSubstr("without \"id\""));
  EXPECT_THAT(Complaint("shards: [{id: a}]"), HasSubstr("without \"address\""));
  EXPECT_THAT(Complaint("shards: [{id: \"a b\", address: \"h:1\"}]"), HasSubstr("\"a b\""));
  EXPECT_THAT(Complaint("shards: [{id: [a], address: \"h:1\"}]"), HasSubstr("not a text"));
  EXPECT_THAT(
      Complaint(absl::StrCat("shards: [{id: ", std::string(129, 'a'), ", address: \"h:1\"}]")),
      HasSubstr("128"));
  for (const char* address : {"h", "h:", ":1", "h:0", "h:65536", "h:x", "h:-1"}) {
    EXPECT_THAT(Complaint(absl::StrCat("shards: [{id: a, address: \"", address, "\"}]")),
                AllOf(HasSubstr("HOST:PORT"), HasSubstr(absl::StrCat("\"", address, "\""))));
  }
  for (const char* weight : {"0", "-1", "nan", "inf", "1001", "heavy", "[1]"}) {
    EXPECT_THAT(
        Complaint(absl::StrCat("shards: [{id: a, address: \"h:1\", weight: ", weight, "}]")),
        HasSubstr("weight"));
  }
}

TEST(MembersFileTest, AnIdGivenTwiceIsRefused) {
  EXPECT_THAT(Complaint("shards: [{id: a, address: \"h:1\"}, {id: a, address: \"h:2\"}]"),
              HasSubstr("given twice"));
}

TEST(MembersFileTest, WhatIsNoMapOrListIsRefused) {
  EXPECT_THAT(Complaint("- a\n"), HasSubstr("not a map"));
  EXPECT_THAT(Complaint("shards: a\n"), HasSubstr("not a list"));
  EXPECT_THAT(Complaint("shards: [a]\n"), HasSubstr("not a map"));
  EXPECT_THAT(Complaint("shards: [\n"), HasSubstr("not YAML"));
}

TEST(MembersFileTest, MoreShardsThanTheLimitAreRefused) {
  std::string text = "shards:\n";
  for (size_t i = 0; i <= limits::kShardsMax; ++i) {
    absl::StrAppend(&text, "  - {id: s", i, ", address: \"h:1\"}\n");
  }
  EXPECT_THAT(Complaint(text), HasSubstr("kShardsMax"));
}

}  // namespace
}  // namespace reprise::cluster
