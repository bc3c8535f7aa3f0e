#include "service/router/session_table.h"

#include <gtest/gtest.h>

#include <list>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"

namespace reprise::router {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);
const Tenant kTenant{"default"};

TEST(SessionTableTest, ASessionIsKnownUntilItsTimeIsOver) {
  SessionTable table({.ttl = absl::Minutes(1)});
  table.Put(kTenant, "chat", {.home = ShardSerial(3)}, kStart);
  ASSERT_NE(table.Find(kTenant, "chat", kStart + absl::Minutes(1)), nullptr);
  EXPECT_EQ(table.Find(kTenant, "chat", kStart)->home, ShardSerial(3));
  EXPECT_EQ(table.Find(kTenant, "chat", kStart + absl::Minutes(1) + absl::Seconds(1)), nullptr);
  table.Expire(kStart + absl::Minutes(2));
  EXPECT_EQ(table.size(), 0u);
}

TEST(SessionTableTest, TenantsDoNotShareSessions) {
  SessionTable table;
  table.Put({"a"}, "chat", {.home = ShardSerial(1)}, kStart);
  EXPECT_EQ(table.Find({"b"}, "chat", kStart), nullptr);
  EXPECT_EQ(table.Find({"ac"}, "hat", kStart), nullptr);
}

TEST(SessionTableTest, TheLeastRecentlyUsedIsForgottenFirst) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  constexpr size_t kMax = 50;
  SessionTable table({.sessions_max = kMax, .ttl = absl::Seconds(200)});
  std::list<std::string> order;  // newest first
  std::map<std::string, absl::Time> used;
  absl::Time now = kStart;
  for (int i = 0; i < 20'000; ++i) {
    now += absl::Seconds(random() % 4);
    const std::string session = absl::StrCat("s", random() % 80);
    if (random() % 3 != 0) {
      table.Put(kTenant, session, {.home = ShardSerial(1 + i)}, now);
      order.remove(session);
      order.push_front(session);
      used[session] = now;
      if (order.size() > kMax) order.pop_back();
    } else if (random() % 2 == 0) {
      table.Expire(now);
      std::erase_if(order,
                    [&](const std::string& s) { return now - used[s] > absl::Seconds(200); });
      ASSERT_EQ(table.size(), order.size());
    } else {
      const bool known = std::find(order.begin(), order.end(), session) != order.end() &&
                         now - used[session] <= absl::Seconds(200);
      ASSERT_EQ(table.Find(kTenant, session, now) != nullptr, known) << session;
    }
  }
}

}  // namespace
}  // namespace reprise::router
