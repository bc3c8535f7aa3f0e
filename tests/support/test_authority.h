// An authority that issues certificates into a folder of its own, for tests of mTLS.
//
// Thread safety: one thread.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "proto/types/tls_options.h"

namespace reprise::testing {

struct CertificateRequest {
  // Subject alternative names, as OpenSSL writes them: "URI:spiffe://test/a,DNS:localhost".
  std::string names;
  absl::Duration valid_for = absl::Hours(1);  // negative: it ended that long ago
};

class TestAuthority {
 public:
  TestAuthority();
  ~TestAuthority();
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  // A certificate of this authority with its key, in files named after `name`; those that are there
  // are replaced in one step each.
  TlsOptions Issue(const std::string& name, const CertificateRequest& request);
  // Of somebody with this SPIFFE id alone.
  TlsOptions IssueTo(const std::string& spiffe_id);

  const std::string& folder() const { return folder_; }
  const std::string& ca_file() const { return ca_file_; }

 private:
  struct Signer;
  std::string folder_;
  std::string ca_file_;
  Signer* signer_;
  int issued_ = 0;
};

}  // namespace reprise::testing
