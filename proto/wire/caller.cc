#include "proto/wire/caller.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

bool Covers(absl::string_view allowed, absl::string_view id) {
  absl::ConsumeSuffix(&allowed, "/");
  return absl::ConsumePrefix(&id, allowed) && (id.empty() || id.front() == '/');
}

bool Contains(const std::vector<std::string>& ids, absl::string_view id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& context,
                                const AccessPolicy& policy) {
  if (!policy.proven) return CallerOf("", policy);
  const std::shared_ptr<const grpc::AuthContext> identity = context.auth_context();
  if (identity == nullptr || !identity->IsPeerAuthenticated()) return CallerOf("", policy);
  // gRPC has it only when the certificate has exactly one.
  const std::vector<grpc::string_ref> ids =
      identity->FindPropertyValues(GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
  if (ids.empty()) return CallerOf("", policy);
  return CallerOf(absl::string_view(ids.front().data(), ids.front().size()), policy);
}

absl::StatusOr<Caller> CallerOf(absl::string_view spiffe_id, const AccessPolicy& policy) {
  if (!policy.proven) {
    return Caller{.tenant = {kDefaultTenant}, .operates = true};
  }
  if (spiffe_id.empty()) {
    return Refusal(absl::StatusCode::kUnauthenticated, "IDENTITY_MISSING",
                   "your certificate has no SPIFFE id, so that nobody can tell whose blocks are "
                   "yours: issue it with one, as a URI among its subject alternative names");
  }
  Caller caller{.tenant = {std::string(spiffe_id)}};
  caller.speaks_for_others = Contains(policy.fleet, spiffe_id);
  caller.operates = caller.speaks_for_others || Contains(policy.operators, spiffe_id);
  const bool allowed =
      caller.operates || std::any_of(policy.allowed.begin(), policy.allowed.end(),
                                     [&](const std::string& a) { return Covers(a, spiffe_id); });
  if (allowed) return caller;
  return Refusal(absl::StatusCode::kPermissionDenied, "CALLER_NOT_ALLOWED",
                 absl::StrCat(spiffe_id,
                              " is not among those that this server serves: start it with "
                              "--tls-allow-id of this id or of one above it"));
}

absl::Status CheckOperates(const Caller& caller, absl::string_view what) {
  if (caller.operates) return absl::OkStatus();
  return Refusal(absl::StatusCode::kPermissionDenied, "OPERATORS_ALONE",
                 absl::StrCat(what, " is for operators and the cluster's own servers, and ",
                              caller.tenant.name,
                              " is neither: start the server with --tls-operator-id of it"));
}

}  // namespace reprise::wire
