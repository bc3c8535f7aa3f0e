#include "service/eviction/reuse_model.h"

#include <gtest/gtest.h>

namespace reprise::shard {
namespace {

constexpr int kMany = 10'000;

TEST(ReuseModel, UntilItLearnedTheOlderIsWorthLessHoweverOftenItWasUsed) {
  const ReuseModel model;
  for (uint64_t age = 1; age < (uint64_t{1} << 50); age *= 2) {
    for (uint32_t uses : {1u, 2u, 100u}) {
      EXPECT_LE(model.Worth(uses, 2 * age), model.Worth(1, age)) << age;
      EXPECT_EQ(model.Worth(uses, age), model.Worth(1, age));
    }
  }
}

TEST(ReuseModel, WhatComesBackSoonerIsWorthMore) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) {
    model.Reused(1, 1000);
    model.Reused(2, 100);
  }
  model.Refit();
  EXPECT_GT(model.Worth(2, 10), 5 * model.Worth(1, 10));
}

TEST(ReuseModel, WhatMoreOftenDoesNotComeBackIsWorthLess) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) {
    model.Reused(2, 100);
    (i % 10 == 0) ? model.Reused(1, 100) : model.GivenUp(1, 1000);
  }
  model.Refit();
  EXPECT_GT(model.Worth(2, 10), 5 * model.Worth(1, 10));
}

// Its time is over: those that were to come back have done so.
TEST(ReuseModel, ABlockThatWaitedLongerThanItsKindDoesIsWorthLittle) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) {
    model.Reused(1, 100);
    model.GivenUp(1, 100'000);
  }
  model.Refit();
  EXPECT_GT(model.Worth(1, 90), 20 * model.Worth(1, 200));
}

// A document that is asked for every thousand uses is worth more shortly before than at once.
TEST(ReuseModel, WorthMayRiseWithAge) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) model.Reused(1, 1000);
  model.Refit();
  EXPECT_GT(model.Worth(1, 900), 2 * model.Worth(1, 10));
}

TEST(ReuseModel, OldLessonsFade) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) model.Reused(1, 100);
  model.Refit();
  const double before = model.Worth(1, 90);
  for (int refit = 0; refit < 100; ++refit) {
    for (int i = 0; i < 100; ++i) model.GivenUp(1, 100'000);
    model.Refit();
  }
  EXPECT_LT(model.Worth(1, 90), before / 100);
}

TEST(ReuseModel, AllUsesFromTheLastClassOnAreOneClass) {
  ReuseModel model;
  for (int i = 0; i < kMany; ++i) model.Reused(limits::kReuseClasses + 5, 100);
  model.Refit();
  EXPECT_EQ(model.Worth(limits::kReuseClasses, 10), model.Worth(UINT32_MAX, 10));
  EXPECT_NE(model.Worth(limits::kReuseClasses, 10), model.Worth(limits::kReuseClasses - 1, 10));
}

}  // namespace
}  // namespace reprise::shard
