#include "proto/wire/status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

TEST(StatusTest, EveryCanonicalCodeSurvivesBothWays) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status sent(static_cast<absl::StatusCode>(code), "the sentence");
    const absl::Status got = FromGrpcStatus(ToGrpcStatus(sent));
    EXPECT_EQ(got.code(), sent.code()) << code;
    EXPECT_EQ(got.message(), "the sentence");
  }
  EXPECT_TRUE(FromGrpcStatus(ToGrpcStatus(absl::OkStatus())).ok());
}

TEST(StatusTest, TheReasonTravelsAsErrorInfoOfOurDomain) {
  const grpc::Status sent =
      ToGrpcStatus(Refusal(absl::StatusCode::kNotFound, "LEASE_OVER", "lease_id 7 is over"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(sent.error_details()));
  EXPECT_EQ(details.code(), 5);
  EXPECT_EQ(details.message(), "lease_id 7 is over");
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "reprise");
  EXPECT_EQ(info.reason(), "LEASE_OVER");
  EXPECT_EQ(RefusalReason(FromGrpcStatus(sent)), "LEASE_OVER");
}

TEST(StatusTest, ResourceExhaustedCarriesARetryHint) {
  const absl::Status got = FromGrpcStatus(
      ToGrpcStatus(Refusal(absl::StatusCode::kResourceExhausted, "OVERLOAD", "come back")));
  EXPECT_EQ(RetryAfter(got), limits::kRetryAfter);
  EXPECT_EQ(RefusalReason(got), "OVERLOAD");
}

TEST(StatusTest, AHintThatIsPassedOnStaysTheSenders) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  google::rpc::Status details;
  details.add_details()->PackFrom(retry);
  const absl::Status got = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy", details.SerializeAsString()));
  EXPECT_EQ(RetryAfter(got), absl::Milliseconds(2250));
  EXPECT_EQ(RetryAfter(FromGrpcStatus(ToGrpcStatus(got))), absl::Milliseconds(2250));
}

TEST(StatusTest, OtherRefusalsCarryNoHint) {
  EXPECT_EQ(RetryAfter(FromGrpcStatus(ToGrpcStatus(absl::NotFoundError("gone")))), std::nullopt);
}

TEST(StatusTest, ForeignDetailsAreDroppedAndTheSentenceStays) {
  google::rpc::ErrorInfo info;
  info.set_domain("proxy.example");
  info.set_reason("NOT_OURS");
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  for (const std::string& bytes : {details.SerializeAsString(), std::string("\xff\xfe garbage")}) {
    const absl::Status got =
        FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no route", bytes));
    EXPECT_EQ(got.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(got.message(), "no route");
    EXPECT_EQ(RefusalReason(got), "");
  }
}

TEST(StatusTest, ACodeOutsideTheCanonicalOnesIsUnknown) {
  const grpc::Status odd(static_cast<grpc::StatusCode>(99), "odd");
  EXPECT_EQ(FromGrpcStatus(odd).code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace reprise::wire
