#include "service/telemetry/counters.h"

#include <gtest/gtest.h>

#include <set>

namespace reprise::shard {
namespace {

TEST(Counters, AllAreThereAtZeroUnderNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const auto& [name, value] : Counters().Snapshot()) {
    EXPECT_EQ(value, 0u);
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_NE(name.find("_total"), std::string::npos) << name;
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(Counter::kCount));
}

TEST(Counters, AddCountsUnderItsOwnName) {
  Counters counters;
  counters.Add(Counter::kStoredBlocks, 3);
  counters.Add(Counter::kStoredBlocks);
  EXPECT_EQ(counters.Get(Counter::kStoredBlocks), 4u);
  for (const auto& [name, value] : counters.Snapshot())
    EXPECT_EQ(value, name == "stored_blocks_total" ? 4u : 0u);
}

}  // namespace
}  // namespace reprise::shard
