// Who calls, and what that allows: from what the transport proved, and never from a field of a
// message.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/server_context.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/types/ids.h"

namespace reprise::wire {

// Whom a server serves. Ids are SPIFFE ids.
struct AccessPolicy {
  // Connections prove who the caller is (mTLS). Without it everybody is the default tenant and may
  // do everything but speak for another one.
  bool proven = false;
  // Those that may call: each stands for itself and for what lies below it, so that
  // "spiffe://prod/ns/chat" allows "spiffe://prod/ns/chat/sa/worker".
  std::vector<std::string> allowed;
  std::vector<std::string> fleet;      // the cluster's own shards and routers
  std::vector<std::string> operators;  // people and programs that run it
};

struct Caller {
  Tenant tenant;                   // whose blocks it reads and writes
  bool operates = false;           // an operator or of the fleet: may see and steer all of it
  bool speaks_for_others = false;  // of the fleet: may attach as another tenant
};

// UNAUTHENTICATED (reason IDENTITY_MISSING) for a certificate without a SPIFFE id,
// PERMISSION_DENIED (reason CALLER_NOT_ALLOWED) for an id that the policy does not allow.
absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& context, const AccessPolicy& policy);
// The same from what the transport proved. Empty: it proved nothing.
absl::StatusOr<Caller> CallerOf(absl::string_view spiffe_id, const AccessPolicy& policy);

// PERMISSION_DENIED (reason OPERATORS_ALONE) unless the caller operates the cluster; `what` it
// wants begins the sentence.
absl::Status CheckOperates(const Caller& caller, absl::string_view what);

}  // namespace reprise::wire
