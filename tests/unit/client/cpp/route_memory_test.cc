#include "client/cpp/route_memory.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "tests/support/manual_clock.h"

namespace reprise::client {
namespace {

std::vector<ShardTarget> Order(const std::vector<std::string>& names) {
  std::vector<ShardTarget> order;
  for (const std::string& name : names) order.push_back({ShardId{name}, absl::StrCat(name, ":1")});
  return order;
}

class RouteMemoryTest : public ::testing::Test {
 protected:
  reprise::testing::ManualClock clock_;
  RouteMemory memory_{clock_};
};

TEST_F(RouteMemoryTest, NothingIsRecalledBeforeARouterSaidIt) {
  EXPECT_FALSE(memory_.Recall("user").has_value());
  EXPECT_TRUE(memory_.KnownShards().empty());
  memory_.NoteRanOut("user", true);
  EXPECT_FALSE(memory_.Recall("user").has_value());
  memory_.Learn("another", Order({"b", "a"}));
  EXPECT_FALSE(memory_.Recall("user").has_value());
}

TEST_F(RouteMemoryTest, WhatWasSaidLastIsRecalledHoweverLongAgoWithItsAge) {
  memory_.Learn("user", Order({"b", "a"}));
  EXPECT_EQ(memory_.Recall("user")->order, Order({"b", "a"}));
  EXPECT_EQ(memory_.Recall("user")->age, absl::ZeroDuration());
  clock_.Advance(absl::Hours(7));
  EXPECT_EQ(memory_.Recall("user")->order, Order({"b", "a"}));
  EXPECT_EQ(memory_.Recall("user")->age, absl::Hours(7));
  memory_.Learn("user", Order({"c"}));
  EXPECT_EQ(memory_.Recall("user")->order, Order({"c"}));
  EXPECT_EQ(memory_.Recall("user")->age, absl::ZeroDuration());
}

TEST_F(RouteMemoryTest, ThatAPromptRanOutIsNotedOfItsSessionUntilOneDoesNot) {
  memory_.Learn("user", Order({"a"}));
  memory_.Learn("another", Order({"a"}));
  EXPECT_FALSE(memory_.Recall("user")->ran_out);
  memory_.NoteRanOut("user", true);
  EXPECT_TRUE(memory_.Recall("user")->ran_out);
  EXPECT_FALSE(memory_.Recall("another")->ran_out);
  // What routers say of the order says nothing of the prompt.
  memory_.Learn("user", Order({"b"}));
  EXPECT_TRUE(memory_.Recall("user")->ran_out);
  memory_.NoteRanOut("user", false);
  EXPECT_FALSE(memory_.Recall("user")->ran_out);
}

TEST_F(RouteMemoryTest, WhatIsForgottenIsNotRecalledAndItsShardsAreKnownStill) {
  memory_.Learn("user", Order({"a"}));
  memory_.NoteRanOut("user", true);
  memory_.Forget("user");
  EXPECT_FALSE(memory_.Recall("user").has_value());
  EXPECT_EQ(memory_.KnownShards(), Order({"a"}));
  memory_.Learn("user", Order({"a"}));
  EXPECT_FALSE(memory_.Recall("user")->ran_out);
}

TEST_F(RouteMemoryTest, TheShardsThatWereNamedLastAreKnownById) {
  memory_.Learn("user", Order({"c", "a", "b"}));
  EXPECT_EQ(memory_.KnownShards(), Order({"a", "b", "c"}));
  memory_.Learn("another", Order({"c", "a"}));
  EXPECT_EQ(memory_.KnownShards(), Order({"a", "c"}));
  memory_.SetKnownShards(Order({"z", "y"}));
  EXPECT_EQ(memory_.KnownShards(), Order({"y", "z"}));
}

TEST_F(RouteMemoryTest, SessionsAreBounded) {
  const auto recalled = [this] {
    size_t count = 0;
    for (size_t i = 0; i <= limits::kRoutesCachedMax; ++i) {
      count += memory_.Recall(absl::StrCat("user ", i)).has_value() ? 1 : 0;
    }
    return count;
  };
  for (size_t i = 0; i < limits::kRoutesCachedMax; ++i) {
    memory_.Learn(absl::StrCat("user ", i), Order({"a"}));
  }
  EXPECT_EQ(recalled(), limits::kRoutesCachedMax);
  memory_.Learn("user 0", Order({"b"}));
  EXPECT_EQ(recalled(), limits::kRoutesCachedMax) << "one that is there makes no room";
  memory_.Learn(absl::StrCat("user ", limits::kRoutesCachedMax), Order({"a"}));
  EXPECT_LE(recalled(), limits::kRoutesCachedMax);
  EXPECT_TRUE(memory_.Recall(absl::StrCat("user ", limits::kRoutesCachedMax)).has_value());
}

}  // namespace
}  // namespace reprise::client
