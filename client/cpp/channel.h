// gRPC channels as the client makes them: bounded messages, quick to try again, no proxy.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
}

namespace reprise::client {

// A channel to host:port. Connects when it is first used.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace reprise::client
