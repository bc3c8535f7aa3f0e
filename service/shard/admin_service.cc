#include "service/shard/admin_service.h"

#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/status.h"

namespace reprise::shard {

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* request,
                                              v1::DrainResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto handle = [&]() -> absl::Status {
    REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(*context, core_.access));
    REPRISE_RETURN_IF_ERROR(wire::CheckOperates(caller, "Drain"));
    return drain_.Handle(*request, *response);
  };
  reactor->Finish(wire::ToGrpcStatus(handle()));
  return reactor;
}

}  // namespace reprise::shard
