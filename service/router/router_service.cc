#include "service/router/router_service.h"

#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/status.h"

namespace reprise::router {

template <typename Handler, typename Request, typename Response>
grpc::ServerUnaryReactor* RouterService::Serve(Handler& handler,
                                               grpc::CallbackServerContext* context,
                                               const Request* request, Response* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto handle = [&]() -> absl::Status {
    REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(*context, access_));
    return handler.Handle(caller.tenant, *request, *response);
  };
  reactor->Finish(wire::ToGrpcStatus(handle()));
  return reactor;
}

grpc::ServerUnaryReactor* RouterService::Locate(grpc::CallbackServerContext* context,
                                                const v1::LocateRequest* request,
                                                v1::LocateResponse* response) {
  return Serve(locate_, context, request, response);
}

grpc::ServerUnaryReactor* RouterService::RouteSession(grpc::CallbackServerContext* context,
                                                      const v1::RouteSessionRequest* request,
                                                      v1::RouteSessionResponse* response) {
  return Serve(route_session_, context, request, response);
}

grpc::ServerWriteReactor<v1::WatchTopologyResponse>* RouterService::WatchTopology(
    grpc::CallbackServerContext* context, const v1::WatchTopologyRequest*) {
  return watch_topology_.Open(wire::CallerOf(*context, access_).status());
}

grpc::ServerUnaryReactor* RouterService::Describe(grpc::CallbackServerContext* context,
                                                  const v1::RouterServiceDescribeRequest* request,
                                                  v1::RouterServiceDescribeResponse* response) {
  return Serve(describe_, context, request, response);
}

}  // namespace reprise::router
