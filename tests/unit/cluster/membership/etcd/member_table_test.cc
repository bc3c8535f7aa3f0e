#include "cluster/membership/etcd/member_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cluster/membership/etcd/member_record.h"
#include "proto/types/limits.h"

namespace reprise::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);
constexpr absl::Duration kKept = absl::Minutes(10);

Member Named(const std::string& id, int port = 7070) {
  return {.id = {id}, .address = absl::StrCat("10.0.0.1:", port)};
}
EtcdEntry EntryOf(const Member& member, bool leaving = false) {
  return {.key = absl::StrCat("/m/", member.id.name),
          .value = ToRecord({.member = member, .leaving = leaving})};
}
EtcdChange Put(const EtcdEntry& entry) {
  return {.entry = entry};
}
EtcdChange Deleted(const std::string& id) {
  return {.entry = {.key = absl::StrCat("/m/", id)}, .deleted = true};
}

class MemberTableTest : public ::testing::Test {
 protected:
  MemberTable table_{"/m/", kKept};
};

TEST_F(MemberTableTest, MembersAreWhoIsRegistered) {
  table_.Replace(std::vector{EntryOf(Named("b")), EntryOf(Named("a"))}, kNow);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a"), Named("b")));
  table_.Apply(Put(EntryOf(Named("c"))), kNow);
  table_.Apply(Put(EntryOf(Named("a", 9))), kNow);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a", 9), Named("b"), Named("c")));
}

TEST_F(MemberTableTest, WhoVanishesStaysForAWhileAndNoLonger) {
  table_.Replace(std::vector{EntryOf(Named("a")), EntryOf(Named("b"))}, kNow);
  table_.Apply(Deleted("a"), kNow);
  table_.Forget(kNow + kKept - absl::Seconds(1));
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a"), Named("b")));
  table_.Forget(kNow + kKept);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("b")));
}

TEST_F(MemberTableTest, WhoIsMissingInAListingHasVanishedToo) {
  table_.Replace(std::vector{EntryOf(Named("a")), EntryOf(Named("b"))}, kNow);
  // An etcd that lost its data lists nobody.
  table_.Replace({}, kNow + absl::Minutes(1));
  EXPECT_EQ(table_.Members().size(), 2u);
  // Its later listings do not make the time begin anew.
  table_.Replace({}, kNow + absl::Minutes(5));
  table_.Forget(kNow + absl::Minutes(1) + kKept);
  EXPECT_THAT(table_.Members(), IsEmpty());
}

TEST_F(MemberTableTest, WhoComesBackIsAsIfItHadNeverVanished) {
  table_.Replace(std::vector{EntryOf(Named("a"))}, kNow);
  table_.Apply(Deleted("a"), kNow);
  table_.Apply(Put(EntryOf(Named("a"))), kNow + absl::Minutes(9));
  table_.Forget(kNow + absl::Hours(9));
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a")));
}

TEST_F(MemberTableTest, WhoSaysGoodByeLeavesAtOnce) {
  table_.Replace(std::vector{EntryOf(Named("a")), EntryOf(Named("b"))}, kNow);
  table_.Apply(Put(EntryOf(Named("a"), true)), kNow);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("b")));
  table_.Apply(Deleted("a"), kNow);  // its lease ends later
  EXPECT_THAT(table_.Members(), ElementsAre(Named("b")));
  table_.Apply(Put(EntryOf(Named("a"))), kNow);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a"), Named("b")));
}

TEST_F(MemberTableTest, ABrokenRecordIsNamedAndTheLastGoodOneStays) {
  table_.Replace(std::vector{EntryOf(Named("a")), EntryOf(Named("b"))}, kNow);
  EXPECT_EQ(table_.Trouble(), "");
  table_.Apply(Put({.key = "/m/a", .value = "nonsense"}), kNow);
  table_.Apply(Put({.key = "/m/new\x01", .value = "{}"}), kNow);
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a"), Named("b")));
  EXPECT_THAT(table_.Trouble(), HasSubstr("/m/a: it is no JSON object"));
  EXPECT_THAT(table_.Trouble(), HasSubstr("and 1 more"));
  table_.Apply(Deleted("new\x01"), kNow);
  EXPECT_THAT(table_.Trouble(), ::testing::Not(HasSubstr("more")));
  table_.Apply(Put(EntryOf(Named("a", 9))), kNow);
  EXPECT_EQ(table_.Trouble(), "");
  EXPECT_THAT(table_.Members(), ElementsAre(Named("a", 9), Named("b")));
}

TEST_F(MemberTableTest, ABrokenRecordDoesNotKeepItsShardForEver) {
  table_.Replace(std::vector{EntryOf(Named("a"))}, kNow);
  table_.Apply(Put({.key = "/m/a", .value = "nonsense"}), kNow);
  table_.Forget(kNow + kKept);
  EXPECT_THAT(table_.Members(), IsEmpty());
}

TEST_F(MemberTableTest, NoMoreMembersThanAClusterMayHave) {
  std::vector<EtcdEntry> entries;
  for (size_t i = 0; i <= limits::kShardsMax; ++i) {
    entries.push_back(EntryOf(Named(absl::StrCat("shard-", 10'000 + i))));
  }
  table_.Replace(entries, kNow);
  EXPECT_EQ(table_.Members().size(), limits::kShardsMax);
  EXPECT_THAT(table_.Trouble(), HasSubstr("kShardsMax"));
}

TEST_F(MemberTableTest, AKeyOfAnyLengthIsToldInBounds) {
  const std::string id(100'000, '\x01');
  table_.Apply(Put({.key = absl::StrCat("/m/", id), .value = "{}"}), kNow);
  EXPECT_THAT(table_.Trouble(), HasSubstr("/m/\\001"));
  EXPECT_LT(table_.Trouble().size(), 16 * limits::kNameBytesMax);
  table_.Apply(Deleted(id), kNow);
  EXPECT_EQ(table_.Trouble(), "");
}

TEST_F(MemberTableTest, KeysOfOthersAreNobody) {
  table_.Apply(Put({.key = "/other/a", .value = "{}"}), kNow);
  EXPECT_THAT(table_.Members(), IsEmpty());
  EXPECT_EQ(table_.Trouble(), "");
}

}  // namespace
}  // namespace reprise::cluster
