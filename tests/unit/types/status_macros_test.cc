#include "proto/types/status_macros.h"

#include <gtest/gtest.h>

#include <memory>

namespace reprise {
namespace {

absl::StatusOr<std::unique_ptr<int>> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError("odd");
  return std::make_unique<int>(number / 2);
}

absl::StatusOr<int> Quarter(int number) {
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<int> half, Half(number));
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<int> quarter, Half(*half));
  return *quarter;
}

absl::Status Both(int a, int b) {
  REPRISE_RETURN_IF_ERROR(Half(a).status());
  REPRISE_RETURN_IF_ERROR(Half(b).status());
  return absl::OkStatus();
}

TEST(StatusMacros, ValuesPassAndErrorsReturn) {
  EXPECT_EQ(Quarter(12).value(), 3);
  EXPECT_FALSE(Quarter(3).ok());
  EXPECT_FALSE(Quarter(6).ok());
  EXPECT_TRUE(Both(2, 4).ok());
  EXPECT_FALSE(Both(2, 3).ok());
}

TEST(StatusMacrosDeathTest, AFailedCheckNamesItsCondition) {
  REPRISE_CHECK(1 + 1 == 2);
  EXPECT_DEATH(REPRISE_CHECK(1 + 1 == 3), "CHECK failed: 1 \\+ 1 == 3");
}

}  // namespace
}  // namespace reprise
