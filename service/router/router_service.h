// The router's gRPC surface: one handler class per RPC. The verbs take microseconds and run on
// gRPC's threads.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <utility>

#include "absl/status/status.h"
#include "cluster/membership/membership.h"
#include "proto/types/clock.h"
#include "proto/wire/caller.h"
#include "reprise/v1/router.grpc.pb.h"
#include "service/router/handlers/describe_handler.h"
#include "service/router/handlers/locate_handler.h"
#include "service/router/handlers/route_session_handler.h"
#include "service/router/handlers/watch_topology_handler.h"
#include "service/router/router_engine.h"

namespace reprise::router {

class RouterService final : public v1::RouterService::CallbackService {
 public:
  // REQUIRES: engine, membership and clock outlive the server that this is registered with.
  RouterService(RouterEngine& engine, const cluster::Membership& membership, const Clock& clock,
                wire::AccessPolicy access)
      : access_(std::move(access)),
        locate_(engine, clock),
        route_session_(engine, clock),
        watch_topology_(engine, clock),
        describe_(engine, membership, clock) {}

  // Called every kRouterTickInterval.
  void Tick() { watch_topology_.Tick(); }
  size_t topology_watchers() const { return watch_topology_.watchers(); }
  // Ends the streams that never end by themselves.
  void EndStreams(const absl::Status& why) { watch_topology_.EndAll(why); }

  grpc::ServerUnaryReactor* Locate(grpc::CallbackServerContext* context,
                                   const v1::LocateRequest* request,
                                   v1::LocateResponse* response) override;
  grpc::ServerUnaryReactor* RouteSession(grpc::CallbackServerContext* context,
                                         const v1::RouteSessionRequest* request,
                                         v1::RouteSessionResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchTopologyResponse>* WatchTopology(
      grpc::CallbackServerContext* context, const v1::WatchTopologyRequest* request) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::RouterServiceDescribeRequest* request,
                                     v1::RouterServiceDescribeResponse* response) override;

 private:
  template <typename Handler, typename Request, typename Response>
  grpc::ServerUnaryReactor* Serve(Handler& handler, grpc::CallbackServerContext* context,
                                  const Request* request, Response* response);

  const wire::AccessPolicy access_;
  LocateHandler locate_;
  RouteSessionHandler route_session_;
  WatchTopologyHandler watch_topology_;
  DescribeHandler describe_;
};

}  // namespace reprise::router
