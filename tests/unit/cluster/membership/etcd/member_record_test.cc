#include "cluster/membership/etcd/member_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/types/limits.h"

namespace reprise::cluster {
namespace {

using ::testing::HasSubstr;

TEST(MemberRecordTest, WhatIsWrittenIsRead) {
  const MemberRecord record{
      .member = {.id = {"shard-7"}, .address = "10.0.0.7:7070", .weight = 2.5}, .leaving = true};
  const auto read = ParseRecord("shard-7", ToRecord(record));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->member, record.member);
  EXPECT_TRUE(read->leaving);
}

TEST(MemberRecordTest, WhatIsLeftOutHasItsDefaultAndWhatIsNewIsPassedOver) {
  const auto read = ParseRecord("s", R"({"address":"h:1","zone":"a","gpus":[1,2]})");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->member.weight, 1.0);
  EXPECT_FALSE(read->leaving);
}

TEST(MemberRecordTest, WhatIsWrongIsNamed) {
  const auto why = [](absl::string_view id, absl::string_view value) {
    return std::string(ParseRecord(id, value).status().message());
  };
  EXPECT_THAT(why("s", ""), HasSubstr("no JSON object"));
  EXPECT_THAT(why("s", "[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(why("s", "{}"), HasSubstr("no text \"address\""));
  EXPECT_THAT(why("s", R"({"address":7})"), HasSubstr("no text \"address\""));
  EXPECT_THAT(why("s", R"({"address":"here"})"), HasSubstr("not HOST:PORT"));
  EXPECT_THAT(why("s", R"({"address":"h\u001b[2J:1"})"), HasSubstr("address \"h\\033[2J:1\""));
  EXPECT_THAT(why("s", R"({"address":"h:1","weight":"2"})"), HasSubstr("weight is no number"));
  EXPECT_THAT(why("s", R"({"address":"h:1","weight":0})"), HasSubstr("weight 0"));
  EXPECT_THAT(why("s", R"({"address":"h:1","leaving":1})"), HasSubstr("neither true nor false"));
  EXPECT_THAT(why("a/b", R"({"address":"h:1"})"), HasSubstr("id \"a/b\""));
  EXPECT_THAT(why("\x1b[2J", R"({"address":"h:1"})"), HasSubstr("id \"\\033[2J\""));
  EXPECT_THAT(why("", R"({"address":"h:1"})"), HasSubstr("id \"\""));
  EXPECT_THAT(why("s", std::string(limits::kMemberRecordBytesMax + 1, ' ')),
              HasSubstr("kMemberRecordBytesMax"));
}

}  // namespace
}  // namespace reprise::cluster
