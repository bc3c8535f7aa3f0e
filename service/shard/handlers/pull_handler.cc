#include "service/shard/handlers/pull_handler.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/status.h"
#include "proto/wire/verbs.h"
#include "service/shard/shard_peers.h"

namespace reprise::shard {

PullHandler::PullHandler(ShardCore& core)
    : core_(core),
      under_way_(std::make_shared<std::atomic<size_t>>(0)),
      workers_(limits::kPullThreads) {}

grpc::ServerUnaryReactor* PullHandler::Open(grpc::CallbackServerContext* context,
                                            const v1::PullRequest* request,
                                            v1::PullResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  absl::StatusOr<Admission::Ticket> ticket = Admit();
  if (!ticket.ok()) {
    reactor->Finish(wire::ToGrpcStatus(ticket.status()));
    return reactor;
  }
  const absl::Time deadline =
      std::min(absl::FromChrono(context->deadline()), absl::Now() + limits::kPullDeadline);
  workers_.Run([this, context, request, response, reactor, deadline,
                ticket = *std::move(ticket)]() mutable {
    const auto handle = [&]() -> absl::Status {
      if (context->IsCancelled()) return absl::CancelledError("the caller is gone");
      REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(*context, core_.access));
      return Handle(caller, *request, deadline, *response);
    };
    const absl::Status status = handle();
    ticket.reset();
    reactor->Finish(wire::ToGrpcStatus(status));
  });
  return reactor;
}

absl::StatusOr<Admission::Ticket> PullHandler::Admit() {
  REPRISE_ASSIGN_OR_RETURN(const Admission::Ticket ticket,
                           core_.admission->Admit(WorkKind::kWriteCall));
  auto place = std::shared_ptr<const void>(
      nullptr, [ticket, count = under_way_](const void*) { count->fetch_sub(1); });
  if (under_way_->fetch_add(1) < limits::kPullsMax) return place;
  return Refusal(
      absl::StatusCode::kResourceExhausted, "PULLS_MAX",
      absl::StrCat("kPullsMax = ", limits::kPullsMax, " pulls are under way: try again after ",
                   absl::FormatDuration(limits::kRetryAfter), ", or compute the prefix"));
}

absl::StatusOr<cluster::ReplicationJob> PullHandler::JobOf(Tenant tenant,
                                                           const v1::PullRequest& request) {
  cluster::ReplicationJob job{.tenant = std::move(tenant), .session_id = request.session_id()};
  REPRISE_ASSIGN_OR_RETURN(job.keys, UnpackKeys(request.keys(), "keys"));
  job.token_ids = {request.token_ids().begin(), request.token_ids().end()};
  REPRISE_ASSIGN_OR_RETURN(job.spec,
                           core_.engine.Validate(AttachmentId(request.attachment_id()),
                                                 {.spec = SpecHandle(request.spec_handle()),
                                                  .keys = job.keys,
                                                  .session_id = job.session_id,
                                                  .token_ids = job.token_ids}));
  return job;
}

absl::Status PullHandler::Handle(const wire::Caller& caller, const v1::PullRequest& request,
                                 absl::Time deadline, v1::PullResponse& response) {
  if (core_.draining.load(std::memory_order_acquire)) {
    return Refusal(absl::StatusCode::kUnavailable, "DRAINING",
                   absl::StrCat("shard ", core_.id.name, " is about to stop: ask another one"));
  }
  REPRISE_ASSIGN_OR_RETURN(
      Tenant tenant,
      core_.attachments.TenantOf(AttachmentId(request.attachment_id()), caller.tenant));
  REPRISE_ASSIGN_OR_RETURN(const cluster::ReplicationJob job, JobOf(std::move(tenant), request));
  if (core_.peers == nullptr) {
    return Refusal(
        absl::StatusCode::kFailedPrecondition, "NO_MEMBERS",
        absl::StrCat("shard ", core_.id.name, " knows no other shards: start it with --members"));
  }
  REPRISE_ASSIGN_OR_RETURN(
      const cluster::PulledRun run,
      core_.peers->puller().Pull(job, ShardId{request.from_shard_id()}, deadline));
  response.set_run_blocks(run.run_blocks);
  response.set_pulled_blocks(run.pulled_blocks);
  response.set_from_shard_id(run.from.name);
  return absl::OkStatus();
}

}  // namespace reprise::shard
