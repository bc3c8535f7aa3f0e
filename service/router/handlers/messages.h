// What the router's answers have in common.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <span>

#include "absl/time/time.h"
#include "cluster/placement/topology.h"
#include "reprise/v1/router.pb.h"
#include "service/router/router_engine.h"

namespace reprise::router {

v1::ShardState ToMessage(cluster::ShardState state);
void ToMessage(const ShardPlace& place, v1::ShardAddress& address);
void ToMessage(std::span<const LocatedRun> runs,
               google::protobuf::RepeatedPtrField<v1::LocateResponse::Run>& field);
v1::WatchTopologyResponse ToMessage(const cluster::Topology& topology);

// Milliseconds as a field has them; what does not fit is the largest number that does.
uint32_t ToMilliseconds(absl::Duration time);

}  // namespace reprise::router
