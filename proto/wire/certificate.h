// What a certificate says of its holder.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/types/tls_options.h"

namespace reprise::wire {

struct Identity {
  std::string spiffe_id;  // "spiffe://TRUST-DOMAIN/PATH"
  absl::Time expires;
};

// Reads the three files as they are now. INVALID_ARGUMENT naming the file (reason TLS_FILES) when
// one is missing or is not what it should be, when the key is not the certificate's, or when the
// certificate has not exactly one URI among its subject alternative names, its SPIFFE id (SPIFFE's
// X509-SVID, section 2; gRPC tells of none when there are more). An expired certificate is no error
// here.
absl::StatusOr<Identity> ReadIdentity(const TlsOptions& options);

// OK for "spiffe://TRUST-DOMAIN" with or without a path, of at most kTenantBytesMax bytes; else
// INVALID_ARGUMENT (reason SPIFFE_ID).
absl::Status CheckSpiffeId(absl::string_view id);

// "spiffe://TRUST-DOMAIN". REQUIRES: CheckSpiffeId is OK.
absl::string_view TrustDomainOf(absl::string_view id);

}  // namespace reprise::wire
