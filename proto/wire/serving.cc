#include "proto/wire/serving.h"

#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::wire {
namespace {

int Milliseconds(absl::Duration time) {
  return static_cast<int>(absl::ToInt64Milliseconds(time));
}

// Once per process, before the first server is built.
void InitPlugins() {
  static const bool done = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::channelz::experimental::InitChannelzService();
    return true;
  }();
  (void)done;
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits::kMessageBytesMax));
  builder.SetMaxSendMessageSize(static_cast<int>(limits::kMessageBytesMax));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(limits::kMetadataBytesMax));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(limits::kStreamsPerConnectionMax));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(limits::kPingInterval));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(limits::kPingTimeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(limits::kPingIntervalMin));
  // A second process on the same port would take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

void SetHealth(grpc::Server& server, const std::string& name, bool serving) {
  grpc::HealthCheckServiceInterface* const health = server.GetHealthCheckService();
  if (health != nullptr) health->SetServingStatus(name, serving);
}

}  // namespace

absl::Status CheckListenAddress(const std::string& listen, bool insecure,
                                const std::shared_ptr<const Credentials>& credentials) {
  const size_t colon = listen.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return Refusal(absl::StatusCode::kInvalidArgument, "LISTEN_ADDRESS",
                   absl::StrCat("--listen ", listen,
                                " is no host:port: write 127.0.0.1:7001, port 0 for a free one"));
  }
  const std::string host = listen.substr(0, colon);
  const bool loopback = host == "localhost" || host == "[::1]" || absl::StartsWith(host, "127.");
  if (loopback || insecure || credentials != nullptr) return absl::OkStatus();
  return Refusal(absl::StatusCode::kFailedPrecondition, "LISTEN_NOT_LOOPBACK",
                 absl::StrCat("--listen ", listen,
                              " is reachable from other machines, and this connection is "
                              "plaintext: give it a certificate (--tls-ca, --tls-cert, --tls-key), "
                              "listen on 127.0.0.1, or add --insecure on a network that you "
                              "trust"));
}

absl::StatusOr<Listening> Listen(ListenOptions options) {
  InitPlugins();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen,
                           options.credentials != nullptr ? options.credentials->server()
                                                          : grpc::InsecureServerCredentials(),
                           &port);
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  SetLimits(builder);
  if (options.call_ended) TellOfCalls(builder, std::move(options.call_ended));
  Listening listening = {.server = builder.BuildAndStart()};
  if (listening.server == nullptr || port == 0) {
    return Refusal(absl::StatusCode::kUnavailable, "LISTEN_FAILED",
                   absl::StrCat("--listen ", options.listen,
                                " cannot be bound: is another process using the port?"));
  }
  // gRPC itself answers for "" alone, and NOT_FOUND for every other name.
  SetHealth(*listening.server, options.name, true);
  SetHealth(*listening.server, kLivenessName, true);
  const std::string host = options.listen.substr(0, options.listen.rfind(':'));
  listening.address = absl::StrCat(host, ":", port);
  return listening;
}

void SetNotServing(grpc::Server& server, const std::string& name) {
  SetHealth(server, "", false);
  SetHealth(server, name, false);
}

}  // namespace reprise::wire
