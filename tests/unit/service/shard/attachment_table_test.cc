#include "service/shard/attachment_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

using ::testing::ElementsAre;

class AttachmentTableTest : public ::testing::Test {
 protected:
  AttachmentId Add(absl::Time seen = absl::UnixEpoch()) {
    return table_.Add({.tenant = Tenant{"t"}, .client_name = "c", .last_seen = seen}).value();
  }
  AttachmentTable table_;
};

TEST_F(AttachmentTableTest, IdsDoNotFollowFromEachOther) {
  std::set<uint64_t> ids;
  uint64_t ones = 0;
  for (int i = 0; i < 256; ++i) {
    const uint64_t id = Add().value;
    EXPECT_TRUE(ids.insert(id).second);
    ones += static_cast<uint64_t>(__builtin_popcountll(id));
  }
  EXPECT_NEAR(static_cast<double>(ones), 256 * 32, 1000);
}

TEST_F(AttachmentTableTest, HandlesAreNumberedFromOneAndMeanTheirSpaceInThisAttachmentAlone) {
  const AttachmentId a = Add(), b = Add();
  EXPECT_EQ(table_.Open(a, KeySpaceId(7))->handle, SpecHandle(1));
  EXPECT_EQ(table_.Open(a, KeySpaceId(8))->handle, SpecHandle(2));
  const auto again = table_.Open(a, KeySpaceId(7));
  EXPECT_EQ(again->handle, SpecHandle(1));
  EXPECT_FALSE(again->is_new);
  EXPECT_EQ(table_.Resolve(a, SpecHandle(2)).value(), KeySpaceId(8));
  EXPECT_EQ(RefusalReason(table_.Resolve(b, SpecHandle(1)).status()), "SPEC_UNKNOWN");
  EXPECT_EQ(RefusalReason(table_.Resolve(a, SpecHandle(3)).status()), "SPEC_UNKNOWN");
  EXPECT_THAT(table_.Remove(a), ElementsAre(KeySpaceId(7), KeySpaceId(8)));
  EXPECT_EQ(RefusalReason(table_.Resolve(a, SpecHandle(1)).status()), "ATTACHMENT_UNKNOWN");
  EXPECT_THAT(table_.Remove(a), ElementsAre());
  EXPECT_EQ(RefusalReason(table_.Open(a, KeySpaceId(7)).status()), "ATTACHMENT_UNKNOWN");
}

TEST_F(AttachmentTableTest, SilenceIsCountedFromTheLastSign) {
  const absl::Time start = absl::UnixEpoch();
  const AttachmentId silent = Add(start), lively = Add(start);
  EXPECT_TRUE(table_.Seen(lively, start + absl::Seconds(5)).ok());
  EXPECT_THAT(table_.SilentSince(start + absl::Seconds(4)), ElementsAre(silent));
  EXPECT_EQ(table_.last_seen(lively), start + absl::Seconds(5));
  EXPECT_EQ(table_.last_seen(AttachmentId(1)), absl::InfinitePast());
  EXPECT_TRUE(table_.Seen(lively, start).ok());  // an older sign takes nothing back
  EXPECT_EQ(table_.last_seen(lively), start + absl::Seconds(5));
}

TEST_F(AttachmentTableTest, WhatTheCallerSaidIsKept) {
  const AttachmentId id = Add();
  EXPECT_EQ(table_.Get(id)->tenant, Tenant{"t"});
  EXPECT_EQ(table_.Get(id)->client_name, "c");
  EXPECT_EQ(RefusalReason(table_.Get(AttachmentId(1)).status()), "ATTACHMENT_UNKNOWN");
}

}  // namespace
}  // namespace reprise::shard
