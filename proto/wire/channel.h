// gRPC channels to shards and routers as every process of ours makes them, and the only place that
// makes any: bounded messages, pings that find a dead peer, one connection of its own.
//
// Invariants: once one channel was made here, gRPC runs until the process ends. gRPC 1.51 counts
// the channels of a process; when the last one goes it takes its callback queue down while
// callbacks may still end on it, which frees the queue twice. So the count never falls to zero.
//
// Thread safety: free functions; no shared state beyond that one channel.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "proto/wire/credentials.h"

namespace reprise::wire {

// Dials when it is first used. `address` is host:port; without credentials in plaintext.
std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, const std::shared_ptr<const Credentials>& credentials = nullptr);

// To a server that is not ours and may mind pings: one in `ping_interval` at most, and none while
// no call is under way. `credentials` may be grpc::InsecureChannelCredentials().
std::shared_ptr<grpc::Channel> MakeForeignChannel(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    absl::Duration ping_interval);

}  // namespace reprise::wire
