#include "service/shard/shard_service_server.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/lanes/lane_choice.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/serving.h"
#include "reprise/v1/admin.pb.h"
#include "reprise/v1/peer.pb.h"
#include "reprise/v1/shard.pb.h"
#include "service/shard/shard_metrics.h"
#include "service/shard/shard_peers.h"

namespace reprise::shard {
namespace {

uint64_t RandomId() {
  std::random_device random;
  return (uint64_t{random()} << 32 | random()) | 1;
}

}  // namespace

ShardServer::ShardServer(ShardServerOptions options, ShardEngine& engine)
    : credentials_(options.credentials),
      core_{.engine = engine,
            .id = std::move(options.id),
            .replication = options.replication,
            .access = std::move(options.access),
            .incarnation = RandomId(),
            .started = MonotonicClock().Now(),
            .lanes = std::move(options.lanes),
            .absent_lanes = std::move(options.absent_lanes),
            .host_id = lanes::ThisHostId(),
            .view_socket = std::move(options.view_socket),
            .tcp = options.tcp,
            .lanes_use = std::move(options.lanes_use),
            .on_detached = std::move(options.on_detached),
            .peers = options.peers,
            .start_draining = [this] { StartDraining(); },
            .admission = std::move(options.admission)},
      service_(core_),
      admin_(core_) {}

absl::StatusOr<std::unique_ptr<ShardServer>> ShardServer::Start(ShardServerOptions options,
                                                                ShardEngine& engine) {
  REPRISE_RETURN_IF_ERROR(
      wire::CheckListenAddress(options.listen, options.insecure, options.credentials));
  const ShardServerOptions as_asked = options;
  std::unique_ptr<ShardServer> server(new ShardServer(std::move(options), engine));
  REPRISE_RETURN_IF_ERROR(server->Listen(as_asked));
  return server;
}

absl::Status ShardServer::Listen(const ShardServerOptions& options) {
  std::vector<grpc::Service*> services = {&service_, &admin_};
  if (options.services) {
    more_services_ = options.services([this](const grpc::ServerContextBase& context,
                                             AttachmentId attachment) -> absl::Status {
      REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(context, core_.access));
      return core_.attachments.Check(attachment, caller.tenant);
    });
  }
  for (const auto& service : more_services_) services.push_back(service.get());
  const wire::CallEnded call_ended = options.time_calls ? TimeCalls() : nullptr;
  if (core_.tcp != nullptr) {
    tcp_verbs_ = std::make_unique<TcpVerbs>(core_, call_ended);
    core_.tcp->AnswerVerbs(tcp_verbs_.get());
  }
  REPRISE_ASSIGN_OR_RETURN(wire::Listening listening,
                           wire::Listen({.listen = options.listen,
                                         .services = services,
                                         .name = v1::ShardService::service_full_name(),
                                         .credentials = credentials_,
                                         .call_ended = call_ended}));
  server_ = std::move(listening.server);
  address_ = std::move(listening.address);
  ticker_ = std::thread([this] { TickLoop(); });
  return absl::OkStatus();
}

wire::CallEnded ShardServer::TimeCalls() {
  std::vector<std::string> methods;
  for (const google::protobuf::Descriptor* message :
       {v1::LookupRequest::descriptor(), v1::DrainRequest::descriptor(),
        v1::NcclOpenRequest::descriptor()}) {
    for (std::string& method : wire::MethodsOf(*message->file())) {
      methods.push_back(std::move(method));
    }
  }
  calls_ = std::make_unique<telemetry::RpcDurations>(methods);
  return [calls = calls_.get()](absl::string_view method, absl::StatusCode code,
                                absl::Duration took) { calls->Ended(method, code, took); };
}

ShardServer::~ShardServer() {
  Stop(absl::ZeroDuration());
}

void ShardServer::StartDraining() {
  wire::SetNotServing(*server_, v1::ShardService::service_full_name());
  service_.StartDraining();
}

void ShardServer::Stop(absl::Duration grace) {
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return;
    stopping_ = true;
  }
  ticks_.Stop();
  if (ticker_.joinable()) ticker_.join();
  if (server_ == nullptr) {
    StopVerbs();
    return;
  }
  const absl::Time end = absl::Now() + grace;
  core_.admission->AwaitIdle(grace);
  // A pull that is under way waits for another shard.
  if (core_.peers != nullptr) core_.peers->Close();
  // Last words: the notices, then the ends of the streams.
  service_.AwaitNotices(std::max(end, absl::Now() + limits::kStopFlush));
  service_.EndStreams(Refusal(absl::StatusCode::kUnavailable, "SHARD_STOPS",
                              absl::StrCat("shard ", core_.id.name, " stops: use another one")));
  server_->Shutdown(absl::ToChronoTime(std::max(end, absl::Now() + limits::kStopFlush)));
  server_->Wait();
  StopVerbs();
}

void ShardServer::StopVerbs() {
  if (core_.tcp != nullptr) core_.tcp->AnswerVerbs(nullptr);
}

ShardSnapshot ShardServer::Snapshot() const {
  ShardSnapshot snapshot = SnapshotOf(core_, Tenant{});
  snapshot.address = address_;
  return snapshot;
}

telemetry::StatusSource ShardServer::status() const {
  return telemetry::SourceOf(
      {.component = "shard",
       .version = REPRISE_VERSION,
       .address = address_,
       .calls = calls_.get(),
       .ticks = &ticks_,
       .certificate_expires = wire::ExpiryOf(credentials_),
       .draining = [this] { return core_.draining.load(std::memory_order_acquire); },
       .metrics = [this] { return ToFamilies(Snapshot()); },
       .page = [this] { return ToPage(Snapshot()); }});
}

void ShardServer::TickLoop() {
  absl::Time next_beat = MonotonicClock().Now();
  absl::MutexLock lock(&mu_);
  while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), limits::kTickInterval)) {
    mu_.Unlock();
    service_.Tick();
    ticks_.Ticked();
    if (MonotonicClock().Now() >= next_beat) {
      service_.Beat();
      next_beat += limits::kHeartbeatInterval;
    }
    mu_.Lock();
  }
}

}  // namespace reprise::shard
