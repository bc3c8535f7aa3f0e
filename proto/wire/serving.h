// How every server of ours listens: bounded messages, pings that find a dead peer, health,
// reflection and channelz; mTLS, or plaintext, which is for loopback unless told otherwise.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/wire/call_times.h"
#include "proto/wire/credentials.h"

namespace reprise::wire {

// OK when `listen` is host:port and its host is loopback, or there are credentials, or `insecure`.
// INVALID_ARGUMENT (reason LISTEN_ADDRESS), FAILED_PRECONDITION (reason LISTEN_NOT_LOOPBACK).
absl::Status CheckListenAddress(const std::string& listen, bool insecure,
                                const std::shared_ptr<const Credentials>& credentials);

struct Listening {
  std::unique_ptr<grpc::Server> server;
  std::string address;  // host:port as bound
};

// The name under which health tells whether the process is well: SERVING until it ends, also while
// it drains. Whether to send it calls is told by "" and by the main service's own name.
inline constexpr char kLivenessName[] = "liveness";

struct ListenOptions {
  std::string listen;                              // REQUIRES: CheckListenAddress was OK
  std::vector<grpc::Service*> services;            // REQUIRES: they outlive the server
  std::string name;                                // the main one's full name in the proto
  std::shared_ptr<const Credentials> credentials;  // nullptr: plaintext
  CallEnded call_ended;  // told of every call; empty: nobody is, and calls are not timed
};

// UNAVAILABLE (reason LISTEN_FAILED) when the address cannot be bound.
absl::StatusOr<Listening> Listen(ListenOptions options);

// Health says from now on that no calls are to be sent. Those that come are answered all the same.
void SetNotServing(grpc::Server& server, const std::string& name);

}  // namespace reprise::wire
