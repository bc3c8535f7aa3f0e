#include "proto/wire/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/credentials.h"
#include "tests/support/test_authority.h"

namespace reprise::wire {
namespace {

using ::testing::HasSubstr;

class CertificateTest : public ::testing::Test {
 protected:
  // What is said of `options`, which are wrong.
  std::string Complaint(const TlsOptions& options) {
    const absl::Status status = ReadIdentity(options).status();
    EXPECT_EQ(RefusalReason(status), "TLS_FILES") << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }
  std::string FileWith(const std::string& text) {
    const std::string path = authority_.folder() + "/text.pem";
    std::ofstream(path) << text;
    return path;
  }

  testing::TestAuthority authority_;
  const TlsOptions good_ = authority_.IssueTo("spiffe://test/worker");
};

TEST_F(CertificateTest, SaysWhoItIsAndUntilWhen) {
  const auto identity = ReadIdentity(good_);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->spiffe_id, "spiffe://test/worker");
  EXPECT_GT(identity->expires, absl::Now() + absl::Minutes(50));
  EXPECT_LT(identity->expires, absl::Now() + absl::Minutes(70));
}

TEST_F(CertificateTest, OtherNamesBesideTheIdDoNoHarm) {
  const auto identity = ReadIdentity(
      authority_.Issue("more", {.names = "DNS:localhost,IP:127.0.0.1,URI:spiffe://test/more"}));
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->spiffe_id, "spiffe://test/more");
}

TEST_F(CertificateTest, WhatIsMissingIsNamed) {
  TlsOptions options = good_;
  options.key_file.clear();
  EXPECT_THAT(Complaint(options), HasSubstr("the key is missing"));
  options = good_;
  options.ca_file = authority_.folder() + "/none.pem";
  EXPECT_THAT(Complaint(options), HasSubstr("none.pem cannot be read"));
}

TEST_F(CertificateTest, WhatIsNoCertificateOrKeyIsNamed) {
  TlsOptions options = good_;
  options.certificate_file = FileWith("hello");
  EXPECT_THAT(Complaint(options), HasSubstr("has no certificate in PEM form"));
  options = good_;
  options.key_file = good_.certificate_file;
  EXPECT_THAT(Complaint(options), HasSubstr("has no private key in PEM form"));
  options = good_;
  options.ca_file = FileWith("");
  EXPECT_THAT(Complaint(options), HasSubstr("CA file"));
}

TEST_F(CertificateTest, AnotherOnesKeyIsRefused) {
  TlsOptions options = good_;
  options.key_file = authority_.IssueTo("spiffe://test/other").key_file;
  EXPECT_THAT(Complaint(options), HasSubstr("is not the key of"));
}

TEST_F(CertificateTest, NoneOrSeveralIdsAreRefused) {
  EXPECT_THAT(Complaint(authority_.Issue("dns", {.names = "DNS:localhost"})),
              HasSubstr("has 0 URIs"));
  EXPECT_THAT(Complaint(authority_.Issue("none", {})), HasSubstr("SPIFFE id"));
  EXPECT_THAT(Complaint(authority_.Issue("other", {.names = "URI:https://example.org/x"})),
              HasSubstr("(https://example.org/x)"));
  for (const char* second : {"spiffe://test/b", "https://example.org/x"}) {
    EXPECT_THAT(Complaint(authority_.Issue(
                    "two", {.names = absl::StrCat("URI:spiffe://test/a,URI:", second)})),
                HasSubstr("has 2 URIs"));
  }
}

TEST_F(CertificateTest, NoFilesArePlaintextAndAServerHasToBeAnId) {
  const auto none = Credentials::Load({});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
  TlsOptions options = good_;
  options.servers = {"localhost"};
  EXPECT_EQ(RefusalReason(Credentials::Load(options).status()), "SPIFFE_ID");
}

TEST(SpiffeIdTest, IsASchemeATrustDomainAndAPathOfBoundedLength) {
  EXPECT_TRUE(CheckSpiffeId("spiffe://prod").ok());
  EXPECT_TRUE(CheckSpiffeId("spiffe://prod/ns/a").ok());
  const std::string longest =
      "spiffe://prod/" + std::string(limits::kTenantBytesMax - sizeof("spiffe://prod/") + 1, 'x');
  EXPECT_TRUE(CheckSpiffeId(longest).ok());
  for (const std::string& bad : {std::string(), std::string("prod"), std::string("spiffe://"),
                                 std::string("spiffe:///ns"), longest + "x"}) {
    EXPECT_EQ(RefusalReason(CheckSpiffeId(bad)), "SPIFFE_ID") << bad.substr(0, 40);
  }
  EXPECT_EQ(TrustDomainOf("spiffe://prod/ns/a"), "spiffe://prod");
  EXPECT_EQ(TrustDomainOf("spiffe://prod"), "spiffe://prod");
}

}  // namespace
}  // namespace reprise::wire
