#include "service/shard/admin_service.h"

#include "proto/wire/status.h"

namespace reprise::shard {

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* request,
                                              v1::DrainResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(wire::ToGrpcStatus(drain_.Handle(*request, *response)));
  return reactor;
}

}  // namespace reprise::shard
