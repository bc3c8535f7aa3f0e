#include "service/shard/tcp_verbs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"

namespace reprise::shard {

using lanes::tcp::Verb;

TcpVerbs::TcpVerbs(ShardCore& core, wire::CallEnded told)
    : core_(core),
      told_(std::move(told)),
      lookup_(core),
      acquire_(core),
      release_(core),
      reserve_(core),
      commit_(core) {}

absl::StatusOr<std::string> TcpVerbs::Answer(AttachmentId attachment, Verb verb,
                                             absl::string_view request) {
  switch (verb) {
    case Verb::kLookup:
      return Run<v1::LookupRequest, v1::LookupResponse>(
          WorkKind::kReadCall, lookup_, "reprise.v1.ShardService/Lookup", attachment, request);
    case Verb::kAcquire:
      return Run<v1::AcquireRequest, v1::AcquireResponse>(
          WorkKind::kReadCall, acquire_, "reprise.v1.ShardService/Acquire", attachment, request);
    case Verb::kRelease:
      return Run<v1::ReleaseRequest, v1::ReleaseResponse>(
          WorkKind::kReadCall, release_, "reprise.v1.ShardService/Release", attachment, request);
    case Verb::kReserve:
      return Run<v1::ReserveRequest, v1::ReserveResponse>(
          WorkKind::kWriteCall, reserve_, "reprise.v1.ShardService/Reserve", attachment, request);
    case Verb::kCommit:
      return Run<v1::CommitRequest, v1::CommitResponse>(
          WorkKind::kWriteCall, commit_, "reprise.v1.ShardService/Commit", attachment, request);
  }
  return Refusal(absl::StatusCode::kUnimplemented, "TCP_VERB_UNKNOWN",
                 absl::StrCat("verb ", static_cast<uint32_t>(verb),
                              " is unknown to this shard's tcp port: ask over gRPC"));
}

template <typename Request, typename Response, typename Handler>
absl::StatusOr<std::string> TcpVerbs::Run(WorkKind kind, Handler& handler, absl::string_view method,
                                          AttachmentId attachment, absl::string_view bytes) {
  const absl::Time began = MonotonicClock().Now();
  const auto run = [&]() -> absl::StatusOr<std::string> {
    REPRISE_ASSIGN_OR_RETURN(const Admission::Ticket ticket, core_.admission->Admit(kind));
    REPRISE_ASSIGN_OR_RETURN(Tenant tenant, core_.attachments.CallerOf(attachment));
    Request request;
    if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      return Refusal(absl::StatusCode::kInvalidArgument, "REQUEST_MALFORMED",
                     absl::StrCat("the body is no ", Request::descriptor()->full_name(),
                                  ": send the message that gRPC would carry"));
    }
    request.set_attachment_id(attachment.value);
    Response response;
    REPRISE_RETURN_IF_ERROR(
        handler.Handle(wire::Caller{.tenant = std::move(tenant)}, request, response));
    std::string answer = response.SerializeAsString();
    if (answer.size() <= limits::kTcpVerbBytesMax) return answer;
    return Refusal(absl::StatusCode::kUnimplemented, "TCP_ANSWER_SIZE",
                   absl::StrCat("the answer has ", answer.size(), " bytes, more than ",
                                limits::kTcpVerbBytesMax, ": ask over gRPC"));
  };
  absl::StatusOr<std::string> answer = run();
  if (told_) told_(method, answer.status().code(), MonotonicClock().Now() - began);
  return answer;
}

}  // namespace reprise::shard
