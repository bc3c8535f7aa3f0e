#include "proto/wire/channel.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>

#include "proto/types/limits.h"

namespace reprise::wire {
namespace {

// A call that never leaves the process, on a channel that never goes. When the last channel of a
// process goes, gRPC 1.51 frees its callback queue twice, if it is unlucky; if it is lucky, it
// stops and joins its threads, which takes seconds, and the last owner of a channel may be a call
// that ends on one of those very threads, which would then join itself.
struct Forever {
  std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel("unix:none", nullptr);
  grpc::ClientContext context;
  grpc::Slice nothing;
  grpc::ByteBuffer request{&nothing, 1};
  grpc::ByteBuffer response;
};

void KeepGrpcRunning() {
  // Volatile, so that the pointer is really kept: a leak checker looks for it.
  static Forever* volatile const forever = [] {
    auto* const made = new Forever;
    grpc::GenericStub(made->channel)
        .UnaryCall(&made->context, "/none", grpc::StubOptions(), &made->request, &made->response,
                   [](const grpc::Status&) {});
    return made;
  }();
  (void)forever;
}

int Milliseconds(absl::Duration time) {
  return static_cast<int>(absl::ToInt64Milliseconds(time));
}

grpc::ChannelArguments Arguments(absl::Duration ping_interval, bool ping_without_calls) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(limits::kMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(limits::kMessageBytesMax));
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, static_cast<int>(limits::kMetadataBytesMax));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(ping_interval));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(limits::kPingTimeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, ping_without_calls ? 1 : 0);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, Milliseconds(limits::kReconnectMin));
  // This one is the time that a connection attempt is given.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, Milliseconds(limits::kConnectDeadline));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, Milliseconds(limits::kReconnectMax));
  // A large read on one connection must not hold up the calls of another link.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return arguments;
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const std::shared_ptr<const Credentials>& credentials) {
  KeepGrpcRunning();
  return grpc::CreateCustomChannel(
      address, credentials != nullptr ? credentials->channel() : grpc::InsecureChannelCredentials(),
      Arguments(limits::kPingInterval, true));
}

std::shared_ptr<grpc::Channel> MakeForeignChannel(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    absl::Duration ping_interval) {
  KeepGrpcRunning();
  return grpc::CreateCustomChannel(address, credentials, Arguments(ping_interval, false));
}

}  // namespace reprise::wire
