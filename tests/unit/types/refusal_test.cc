#include "proto/types/refusal.h"

#include <gtest/gtest.h>

namespace reprise {
namespace {

TEST(Refusal, CarriesCodeSentenceAndReason) {
  const absl::Status status =
      Refusal(absl::StatusCode::kNotFound, "LEASE_UNKNOWN", "lease 5 is over");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "lease 5 is over");
  EXPECT_EQ(RefusalReason(status), "LEASE_UNKNOWN");
}

TEST(Refusal, AnyOtherStatusHasNoReason) {
  EXPECT_EQ(RefusalReason(absl::OkStatus()), "");
  EXPECT_EQ(RefusalReason(absl::InternalError("x")), "");
}

}  // namespace
}  // namespace reprise
