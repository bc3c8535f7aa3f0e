// Who calls: the tenant, from what the transport proved, and never from a field of a message.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/server_context.h>

#include "proto/types/ids.h"

namespace reprise::wire {

// The peer's SPIFFE id on mTLS, kDefaultTenant on a connection that proves nothing.
Tenant TenantOf(const grpc::ServerContextBase& context);

}  // namespace reprise::wire
