#include "client/cpp/channel.h"

#include <grpcpp/grpcpp.h>

#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::client {

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(limits::kMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(limits::kMessageBytesMax));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(limits::kBackOffMax)));
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(limits::kConnectDeadline)));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(limits::kConnectDeadline)));
  return grpc::CreateCustomChannel("dns:///" + address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace reprise::client
