#include "service/shard/shard_service.h"

#include <utility>

#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/status.h"

namespace reprise::shard {

ShardService::ShardService(ShardCore& core)
    : core_(core),
      disk_readers_(limits::kDiskReaders),
      attach_(core),
      open_spec_(core),
      lookup_(core),
      acquire_(core),
      release_(core),
      reserve_(core),
      write_(core),
      commit_(core),
      read_(core, disk_readers_),
      pull_(core),
      hint_(core),
      remove_(core),
      explain_(core),
      watch_blocks_(core),
      describe_(core),
      workers_(limits::kShardWorkers) {}

void ShardService::StartDraining() {
  if (core_.draining.exchange(true, std::memory_order_acq_rel)) return;
  core_.attachments.ForEach([](AttachedStream& stream) { stream.Drain(); });
  watch_blocks_.Beat();
}

bool ShardService::AwaitNotices(absl::Time deadline) {
  return core_.attachments.AwaitNotices(deadline);
}

void ShardService::EndStreams(const absl::Status& why) {
  core_.attachments.EndAll(why);
  watch_blocks_.EndAll(why);
}

void ShardService::Tick() {
  const absl::Time now = MonotonicClock().Now();
  core_.engine.Tick();
  const absl::Duration silence = limits::kKeepAliveInterval * limits::kKeepAlivesMissedMax;
  core_.attachments.ForEach([&](AttachedStream& stream) { stream.EndIfSilent(now - silence); });
  core_.byte_streams->CancelOlderThan(now - limits::kByteStreamAgeMax);
}

template <typename Handler, typename Request, typename Response>
grpc::ServerUnaryReactor* ShardService::Serve(WorkKind kind, Weight weight, Handler& handler,
                                              grpc::CallbackServerContext* context,
                                              const Request* request, Response* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  absl::StatusOr<Admission::Ticket> ticket = core_.admission->Admit(kind);
  if (!ticket.ok()) {
    reactor->Finish(wire::ToGrpcStatus(ticket.status()));
    return reactor;
  }
  auto work = [this, &handler, context, request, response, reactor,
               ticket = *std::move(ticket)]() mutable {
    const auto handle = [&]() -> absl::Status {
      if (context->IsCancelled()) return absl::CancelledError("the caller is gone");
      REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(*context, core_.access));
      return handler.Handle(caller, *request, *response);
    };
    const absl::Status status = handle();
    ticket.reset();
    reactor->Finish(wire::ToGrpcStatus(status));
  };
  if (weight == Weight::kHeavy) {
    workers_.Run(std::move(work));
  } else {
    work();
  }
  return reactor;
}

grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* ShardService::Attach(
    grpc::CallbackServerContext* context) {
  return attach_.Open(context);
}

grpc::ServerUnaryReactor* ShardService::OpenSpec(grpc::CallbackServerContext* context,
                                                 const v1::OpenSpecRequest* request,
                                                 v1::OpenSpecResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kLight, open_spec_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Lookup(grpc::CallbackServerContext* context,
                                               const v1::LookupRequest* request,
                                               v1::LookupResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kLight, lookup_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Acquire(grpc::CallbackServerContext* context,
                                                const v1::AcquireRequest* request,
                                                v1::AcquireResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kLight, acquire_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Release(grpc::CallbackServerContext* context,
                                                const v1::ReleaseRequest* request,
                                                v1::ReleaseResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kLight, release_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Reserve(grpc::CallbackServerContext* context,
                                                const v1::ReserveRequest* request,
                                                v1::ReserveResponse* response) {
  const Weight weight = core_.engine.ReserveCopies() ? Weight::kHeavy : Weight::kLight;
  return Serve(WorkKind::kWriteCall, weight, reserve_, context, request, response);
}

grpc::ServerReadReactor<grpc::ByteBuffer>* ShardService::Write(grpc::CallbackServerContext* context,
                                                               grpc::ByteBuffer* response) {
  return write_.Open(context, response);
}

grpc::ServerUnaryReactor* ShardService::Commit(grpc::CallbackServerContext* context,
                                               const v1::CommitRequest* request,
                                               v1::CommitResponse* response) {
  return Serve(WorkKind::kWriteCall, Weight::kHeavy, commit_, context, request, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ShardService::Read(grpc::CallbackServerContext* context,
                                                               const grpc::ByteBuffer* request) {
  return read_.Open(context, *request);
}

grpc::ServerUnaryReactor* ShardService::Pull(grpc::CallbackServerContext* context,
                                             const v1::PullRequest* request,
                                             v1::PullResponse* response) {
  return pull_.Open(context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Hint(grpc::CallbackServerContext* context,
                                             const v1::HintRequest* request,
                                             v1::HintResponse* response) {
  return Serve(WorkKind::kWriteCall, Weight::kHeavy, hint_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Remove(grpc::CallbackServerContext* context,
                                               const v1::RemoveRequest* request,
                                               v1::RemoveResponse* response) {
  return Serve(WorkKind::kWriteCall, Weight::kHeavy, remove_, context, request, response);
}

grpc::ServerUnaryReactor* ShardService::Explain(grpc::CallbackServerContext* context,
                                                const v1::ExplainRequest* request,
                                                v1::ExplainResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kHeavy, explain_, context, request, response);
}

grpc::ServerWriteReactor<v1::WatchBlocksResponse>* ShardService::WatchBlocks(
    grpc::CallbackServerContext* context, const v1::WatchBlocksRequest*) {
  return watch_blocks_.Open(context);
}

grpc::ServerUnaryReactor* ShardService::Describe(grpc::CallbackServerContext* context,
                                                 const v1::ShardServiceDescribeRequest* request,
                                                 v1::ShardServiceDescribeResponse* response) {
  return Serve(WorkKind::kReadCall, Weight::kHeavy, describe_, context, request, response);
}

}  // namespace reprise::shard
