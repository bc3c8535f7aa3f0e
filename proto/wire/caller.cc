#include "proto/wire/caller.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <memory>
#include <string>
#include <vector>

namespace reprise::wire {

Tenant TenantOf(const grpc::ServerContextBase& context) {
  const std::shared_ptr<const grpc::AuthContext> identity = context.auth_context();
  if (identity == nullptr || !identity->IsPeerAuthenticated()) return Tenant{kDefaultTenant};
  const std::vector<grpc::string_ref> ids =
      identity->FindPropertyValues(GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
  if (ids.empty()) return Tenant{kDefaultTenant};
  return Tenant{std::string(ids.front().data(), ids.front().size())};
}

}  // namespace reprise::wire
