#include "service/shard/shard_service_server.h"

#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/lanes/lane_choice.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

uint64_t RandomId() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

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
  // A second shard on the same port would take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

absl::Status CheckListenAddress(const std::string& listen, bool insecure) {
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
  if (loopback || insecure) return absl::OkStatus();
  return Refusal(absl::StatusCode::kFailedPrecondition, "LISTEN_NOT_LOOPBACK",
                 absl::StrCat("--listen ", listen,
                              " is reachable from other machines, and this connection is "
                              "plaintext: listen on 127.0.0.1, or add --insecure on a network "
                              "that you trust"));
}

ShardServer::ShardServer(ShardServerOptions options, ShardEngine& engine)
    : core_{.engine = engine,
            .id = std::move(options.id),
            .replication = options.replication,
            .incarnation = RandomId(),
            .started = MonotonicClock().Now(),
            .lanes = std::move(options.lanes),
            .host_id = lanes::ThisHostId(),
            .view_socket = std::move(options.view_socket),
            .more_counters = std::move(options.more_counters),
            .on_detached = std::move(options.on_detached),
            .admission = Admission::Create(options.admission)},
      service_(core_) {}

absl::StatusOr<std::unique_ptr<ShardServer>> ShardServer::Start(ShardServerOptions options,
                                                                ShardEngine& engine) {
  REPRISE_RETURN_IF_ERROR(CheckListenAddress(options.listen, options.insecure));
  const ShardServerOptions as_asked = options;
  std::unique_ptr<ShardServer> server(new ShardServer(std::move(options), engine));
  REPRISE_RETURN_IF_ERROR(server->Listen(as_asked));
  return server;
}

absl::Status ShardServer::Listen(const ShardServerOptions& options) {
  InitPlugins();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service_);
  SetLimits(builder);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return Refusal(absl::StatusCode::kUnavailable, "LISTEN_FAILED",
                   absl::StrCat("--listen ", options.listen,
                                " cannot be bound: is another process using the port?"));
  }
  address_ = absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  ticker_ = std::thread([this] { TickLoop(); });
  return absl::OkStatus();
}

ShardServer::~ShardServer() {
  Stop(absl::ZeroDuration());
}

void ShardServer::StartDraining() {
  if (grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService()) {
    health->SetServingStatus(false);
  }
  service_.StartDraining();
}

void ShardServer::Stop(absl::Duration grace) {
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return;
    stopping_ = true;
  }
  if (ticker_.joinable()) ticker_.join();
  if (server_ == nullptr) return;
  const absl::Time end = absl::Now() + grace;
  core_.admission->AwaitIdle(grace);
  service_.EndStreams(Refusal(absl::StatusCode::kUnavailable, "SHARD_STOPS",
                              absl::StrCat("shard ", core_.id.name, " stops: use another one")));
  server_->Shutdown(absl::ToChronoTime(std::max(end, absl::Now() + limits::kStopFlush)));
  server_->Wait();
}

void ShardServer::TickLoop() {
  absl::Time next_beat = MonotonicClock().Now();
  absl::MutexLock lock(&mu_);
  while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), limits::kTickInterval)) {
    mu_.Unlock();
    service_.Tick();
    if (MonotonicClock().Now() >= next_beat) {
      service_.Beat();
      next_beat += limits::kHeartbeatInterval;
    }
    mu_.Lock();
  }
}

}  // namespace reprise::shard
