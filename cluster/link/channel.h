// gRPC channels to shards and routers as every process of ours makes them: bounded messages, pings
// that find a dead peer, one connection of its own.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace reprise::cluster {

// Dials when it is first used. `address` is host:port.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace reprise::cluster
