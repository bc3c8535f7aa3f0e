#include "service/process/tls_flags.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/certificate.h"

namespace reprise::process {
namespace {

absl::Status CheckIds(absl::string_view flag, const std::vector<std::string>& ids) {
  for (const std::string& id : ids) {
    const absl::Status status = wire::CheckSpiffeId(id);
    if (status.ok()) continue;
    return Refusal(status.code(), "SPIFFE_ID", absl::StrCat(flag, ": ", status.message()));
  }
  return absl::OkStatus();
}

}  // namespace

void TlsFlags::AddTo(CLI::App& app) {
  app.add_option("--tls-ca", files_.ca_file,
                 "PEM file of the authorities whose certificates are believed. This and the next "
                 "two turn mTLS on; files that change are read again")
      ->envname("REPRISE_TLS_CA");
  app.add_option("--tls-cert", files_.certificate_file,
                 "PEM file of this server's certificate, which has one SPIFFE id")
      ->envname("REPRISE_TLS_CERT");
  app.add_option("--tls-key", files_.key_file, "PEM file of its private key")
      ->envname("REPRISE_TLS_KEY");
  app.add_option("--tls-fleet-id", fleet_,
                 "SPIFFE id of the cluster's shards and routers, which carry blocks of every "
                 "tenant; again for more; default: this server's own");
  app.add_option("--tls-operator-id", operators_,
                 "SPIFFE id of somebody who may list all blocks and drain; again for more");
  app.add_option("--tls-allow-id", allowed_,
                 "SPIFFE id of callers that are served, with all ids below it; again for more; "
                 "default: this server's trust domain");
}

absl::StatusOr<Security> TlsFlags::Open() const {
  REPRISE_RETURN_IF_ERROR(CheckIds("--tls-fleet-id", fleet_));
  REPRISE_RETURN_IF_ERROR(CheckIds("--tls-operator-id", operators_));
  REPRISE_RETURN_IF_ERROR(CheckIds("--tls-allow-id", allowed_));
  if (files_.none()) {
    if (fleet_.empty() && operators_.empty() && allowed_.empty()) {
      return Security{.summary = "plaintext: every caller is the same tenant"};
    }
    return Refusal(absl::StatusCode::kInvalidArgument, "TLS_FILES",
                   "--tls-fleet-id, --tls-operator-id and --tls-allow-id name callers, and without "
                   "TLS nobody proves who he is: add --tls-ca, --tls-cert and --tls-key");
  }
  REPRISE_ASSIGN_OR_RETURN(const wire::Identity identity, wire::ReadIdentity(files_));
  Security security;
  wire::AccessPolicy& access = security.access;
  access.proven = true;
  access.fleet = fleet_.empty() ? std::vector<std::string>{identity.spiffe_id} : fleet_;
  access.operators = operators_;
  access.allowed = allowed_.empty()
                       ? std::vector{std::string(wire::TrustDomainOf(identity.spiffe_id))}
                       : allowed_;
  TlsOptions options = files_;
  options.servers = access.fleet;
  REPRISE_ASSIGN_OR_RETURN(security.credentials, wire::Credentials::Load(options));
  security.summary =
      absl::StrCat("mTLS as ", identity.spiffe_id, ", certificate until ",
                   absl::FormatTime(absl::RFC3339_sec, identity.expires, absl::UTCTimeZone()),
                   "; serves ", absl::StrJoin(access.allowed, ", "));
  return security;
}

}  // namespace reprise::process
