// How a server tells how long each of its calls took.
//
// Invariants: a call is told of once, when its status is sent; one whose client is gone before that
// as CANCELLED. Streams are told of as a whole, and their messages cost nothing more.
//
// Thread safety: free functions; what is told comes from gRPC's threads, at any time while the
// server lives.
#pragma once

#include <google/protobuf/descriptor.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace reprise::wire {

// `method` is "package.Service/Method". Must not block.
using CallEnded =
    std::function<void(absl::string_view method, absl::StatusCode code, absl::Duration took)>;

void TellOfCalls(grpc::ServerBuilder& builder, CallEnded told);

// The methods of the services that a proto file of ours defines, as CallEnded names them: of the
// file of LookupRequest, say, with `v1::LookupRequest::descriptor()->file()`.
std::vector<std::string> MethodsOf(const google::protobuf::FileDescriptor& file);

}  // namespace reprise::wire
