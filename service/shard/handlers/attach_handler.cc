#include "service/shard/handlers/attach_handler.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/enums.h"
#include "proto/wire/status.h"

namespace reprise::shard {
namespace {

absl::Status Invalid(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

absl::Status CheckText(absl::string_view field, const std::string& text) {
  if (text.size() <= limits::kNameBytesMax) return absl::OkStatus();
  return Invalid("NAME_TOO_LONG",
                 absl::StrCat(field, " has ", text.size(), " bytes, more than kNameBytesMax = ",
                              limits::kNameBytesMax, ": shorten it"));
}

class AttachReactor final : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>,
                            public AttachedStream {
 public:
  AttachReactor(ShardCore& core, absl::StatusOr<wire::Caller> caller)
      : core_(core), last_heard_(MonotonicClock().Now()) {
    absl::Status refused = core_.attachments.AddStream(this);
    if (refused.ok()) refused = caller.status();
    if (!refused.ok()) {
      End(refused);
      return;
    }
    caller_ = *std::move(caller);
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(absl::OkStatus());
      return;
    }
    const absl::Status taken = Take();
    if (!taken.ok()) {
      End(taken);
      return;
    }
    absl::MutexLock lock(&mu_);
    last_heard_ = MonotonicClock().Now();
    if (!finished_) StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (std::exchange(writing_notice_, false) || !ok) SettleNotice();
    if (ok) SendNext();
  }

  void OnCancel() override { End(absl::CancelledError("the client is gone")); }

  void OnDone() override {
    {
      absl::MutexLock lock(&mu_);
      SettleNotice();
    }
    core_.attachments.RemoveStream(this);
    if (attachment_) {
      core_.attachments.Disown(attachment_);
      core_.engine.Detach(attachment_);
      core_.byte_streams->CancelOf(attachment_);
      if (core_.on_detached) core_.on_detached(attachment_);
    }
    delete this;
  }

  void Drain() override {
    absl::MutexLock lock(&mu_);
    // Who has not said hello yet is told after the welcome.
    if (welcomed_ || welcome_due_) OweNotice();
    SendNext();
  }

  void EndIfSilent(absl::Time silent_since) override {
    {
      absl::MutexLock lock(&mu_);
      if (last_heard_ >= silent_since) return;
    }
    End(Refusal(absl::StatusCode::kAborted, "ATTACHMENT_SILENT",
                absl::StrCat("no keep_alive came for ", limits::kKeepAlivesMissedMax, " times ",
                             absl::FormatDuration(limits::kKeepAliveInterval),
                             ": attach anew and keep the stream alive")));
  }

  void End(const absl::Status& why) override {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    finished_ = true;
    Finish(wire::ToGrpcStatus(why));
  }

  void EndStopping(const absl::Status& why) override {
    bool told = false;
    {
      absl::MutexLock lock(&mu_);
      told = told_;
    }
    // gRPC drops messages that the other end has not read yet when the call ends with an error.
    End(told ? absl::OkStatus() : why);
  }

 private:
  // Reads come one at a time, so that only this touches request_ and attachment_.
  absl::Status Take() {
    switch (request_.message_case()) {
      case v1::AttachRequest::kHello:
        return TakeHello(request_.hello());
      case v1::AttachRequest::kKeepAlive:
        return TakeKeepAlive();
      case v1::AttachRequest::MESSAGE_NOT_SET:
        break;
    }
    return Invalid("MESSAGE_UNSET", "message is unset: send hello first, then keep_alive");
  }

  absl::Status TakeHello(const v1::AttachRequest::Hello& hello) {
    if (attachment_) {
      return Invalid("HELLO_REPEATED", "hello came twice: send it once, then keep_alive");
    }
    REPRISE_RETURN_IF_ERROR(CheckText("hello.client_name", hello.client_name()));
    REPRISE_RETURN_IF_ERROR(CheckText("hello.host_id", hello.host_id()));
    REPRISE_ASSIGN_OR_RETURN(const std::vector<LaneKind> lanes, SharedLanes(hello));
    REPRISE_ASSIGN_OR_RETURN(const Tenant tenant, TenantFor(hello));
    REPRISE_ASSIGN_OR_RETURN(
        attachment_,
        core_.engine.Attach(tenant, hello.client_name().empty() ? absl::string_view("unnamed")
                                                                : hello.client_name()));
    core_.attachments.Own(attachment_, {.caller = caller_.tenant, .tenant = tenant});
    std::optional<lanes::TcpKey> tcp_key;
    if (std::find(lanes.begin(), lanes.end(), LaneKind::kTcp) != lanes.end()) {
      REPRISE_ASSIGN_OR_RETURN(tcp_key, core_.tcp->Welcome(attachment_));
    }
    absl::MutexLock lock(&mu_);
    welcome_due_ = true;
    if (core_.draining.load(std::memory_order_acquire)) OweNotice();
    welcome_.set_attachment_id(attachment_.value);
    welcome_.set_shard_id(core_.id.name);
    welcome_.set_keep_alive_interval_ms(
        static_cast<uint32_t>(absl::ToInt64Milliseconds(limits::kKeepAliveInterval)));
    for (const LaneKind lane : lanes) {
      welcome_.add_lanes(wire::ToMessage(lane));
      if (lane == LaneKind::kView) welcome_.set_view_socket(core_.view_socket);
      if (lane != LaneKind::kTcp) continue;
      welcome_.set_tcp_port(core_.tcp->port());
      welcome_.set_tcp_verbs(true);
    }
    if (tcp_key.has_value()) welcome_.set_tcp_key(tcp_key->data(), tcp_key->size());
    welcome_.set_incarnation(core_.incarnation);
    SendNext();
    return absl::OkStatus();
  }

  absl::StatusOr<Tenant> TenantFor(const v1::AttachRequest::Hello& hello) const {
    if (hello.tenant().empty() || hello.tenant() == caller_.tenant.name) return caller_.tenant;
    if (!caller_.speaks_for_others) {
      return Refusal(
          absl::StatusCode::kPermissionDenied, "TENANT_OF_OTHERS",
          absl::StrCat("hello.tenant is for the cluster's own servers, and ", caller_.tenant.name,
                       " is none: leave it out, your tenant is who you are"));
    }
    if (hello.tenant().size() <= limits::kTenantBytesMax) return Tenant{hello.tenant()};
    return Invalid("NAME_TOO_LONG",
                   absl::StrCat("hello.tenant has ", hello.tenant().size(),
                                " bytes, more than kTenantBytesMax = ", limits::kTenantBytesMax));
  }

  absl::StatusOr<std::vector<LaneKind>> SharedLanes(const v1::AttachRequest::Hello& hello) const {
    std::vector<LaneKind> theirs;
    for (const int lane : hello.lanes()) {
      // A lane of a newer version is one that we do not have.
      if (lane > v1::LaneKind_MAX) continue;
      REPRISE_ASSIGN_OR_RETURN(const LaneKind kind,
                               wire::FromMessage(static_cast<v1::LaneKind>(lane), "hello.lanes"));
      theirs.push_back(kind);
    }
    if (hello.lanes().empty()) theirs.push_back(LaneKind::kStream);
    const bool same_host = !core_.host_id.empty() && hello.host_id() == core_.host_id;
    std::vector<LaneKind> shared;
    for (const LaneKind lane : core_.lanes) {
      if (lane == LaneKind::kView && (!same_host || core_.view_socket.empty())) continue;
      if (lane == LaneKind::kTcp && core_.tcp == nullptr) continue;
      if (std::find(theirs.begin(), theirs.end(), lane) != theirs.end()) shared.push_back(lane);
    }
    if (!shared.empty()) return shared;
    return Refusal(absl::StatusCode::kFailedPrecondition, "LANES_DISJOINT",
                   "hello.lanes names no lane that this shard has for you: add "
                   "LANE_KIND_STREAM, which works everywhere");
  }

  absl::Status TakeKeepAlive() {
    if (!attachment_) {
      return Invalid("HELLO_MISSING", "keep_alive came before hello: send hello first");
    }
    REPRISE_RETURN_IF_ERROR(core_.engine.KeepAlive(attachment_));
    absl::MutexLock lock(&mu_);
    keep_alive_due_ = true;
    SendNext();
    return absl::OkStatus();
  }

  void OweNotice() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_ || told_) return;
    draining_due_ = true;
    if (!std::exchange(owes_notice_, true)) core_.attachments.OweNotice();
  }
  void SettleNotice() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(owes_notice_, false)) core_.attachments.PayNotice();
  }

  // One message at a time; what is due waits here, and each kind is due at most once.
  void SendNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) return;
    if (std::exchange(welcome_due_, false)) {
      *response_.mutable_welcome() = welcome_;
      welcomed_ = true;
    } else if (welcomed_ && std::exchange(draining_due_, false)) {
      response_.mutable_draining();
      writing_notice_ = true;
      told_ = true;
    } else if (std::exchange(keep_alive_due_, false)) {
      response_.mutable_keep_alive();
    } else {
      return;
    }
    writing_ = true;
    StartWrite(&response_);
  }

  ShardCore& core_;
  wire::Caller caller_;  // set before the first read
  AttachmentId attachment_;
  v1::AttachRequest request_;    // gRPC's while a read is under way
  v1::AttachResponse response_;  // gRPC's while writing_

  absl::Mutex mu_;
  v1::AttachResponse::Welcome welcome_ ABSL_GUARDED_BY(mu_);
  absl::Time last_heard_ ABSL_GUARDED_BY(mu_);
  bool welcome_due_ ABSL_GUARDED_BY(mu_) = false;
  bool welcomed_ ABSL_GUARDED_BY(mu_) = false;
  bool draining_due_ ABSL_GUARDED_BY(mu_) = false;
  bool owes_notice_ ABSL_GUARDED_BY(mu_) = false;  // until it is written or the stream is over
  bool writing_notice_ ABSL_GUARDED_BY(mu_) = false;
  bool told_ ABSL_GUARDED_BY(mu_) = false;  // that the shard stops
  bool keep_alive_due_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* AttachHandler::Open(
    grpc::CallbackServerContext* context) {
  return new AttachReactor(core_, wire::CallerOf(*context, core_.access));
}

}  // namespace reprise::shard
