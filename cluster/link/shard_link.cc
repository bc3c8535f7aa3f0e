#include "cluster/link/shard_link.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "cluster/lanes/lane_choice.h"
#include "cluster/link/attach_stream.h"
#include "cluster/link/lane_factory.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/address.h"
#include "proto/wire/channel.h"
#include "proto/wire/deadline.h"
#include "proto/wire/enums.h"
#include "proto/wire/hints.h"
#include "proto/wire/spec.h"
#include "proto/wire/status.h"
#include "proto/wire/verbs.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::cluster {
namespace {

using Stub = v1::ShardService::Stub;
using lanes::tcp::Verb;

absl::Status ShardGone(absl::string_view address) {
  return Refusal(absl::StatusCode::kUnavailable, "LINK_DOWN",
                 absl::StrCat("the attachment to the shard at ", address,
                              " is over: attach anew, or take its blocks as misses"));
}

// nullopt: the shard's port is in plaintext.
std::optional<lanes::TcpKey> TcpKeyOf(const v1::AttachResponse::Welcome& welcome) {
  lanes::TcpKey key;
  if (welcome.tcp_key().size() != key.size()) return std::nullopt;
  std::copy(welcome.tcp_key().begin(), welcome.tcp_key().end(), key.begin());
  return key;
}

CommittedRun CommittedOf(const v1::CommitResponse& response) {
  return {.committed = response.committed(), .duplicate = response.duplicate()};
}

v1::AttachRequest::Hello HelloOf(const ShardLinkOptions& options) {
  v1::AttachRequest::Hello hello;
  hello.set_client_name(options.client_name);
  hello.set_host_id(lanes::ThisHostId());
  for (const LaneKind kind : options.lanes) {
    if (kind == LaneKind::kNccl && options.nccl == nullptr) continue;
    if (kind != LaneKind::kInProcess) hello.add_lanes(wire::ToMessage(kind));
  }
  hello.set_tenant(options.tenant.name);
  return hello;
}

class GrpcShardLink final : public ShardLink {
 public:
  GrpcShardLink(std::string address, std::shared_ptr<grpc::Channel> channel,
                std::shared_ptr<AttachStream> attach, const v1::AttachResponse::Welcome& welcome,
                std::unique_ptr<lanes::Lane> lane, lanes::TcpLane* tcp)
      : address_(std::move(address)),
        stub_(v1::ShardService::NewStub(channel)),
        attach_(std::move(attach)),
        attachment_(welcome.attachment_id()),
        shard_id_{welcome.shard_id()},
        lane_(std::move(lane)),
        tcp_(welcome.tcp_verbs() ? tcp : nullptr) {}

  ~GrpcShardLink() override { Close(); }

  void Close() override { attach_->Stop(); }
  bool alive() const override { return attach_->alive(); }
  bool draining() const override { return attach_->draining(); }
  const ShardId& shard_id() const override { return shard_id_; }
  lanes::Lane& lane() override { return *lane_; }

  absl::StatusOr<OpenedSpec> OpenSpec(const CacheSpec& spec, absl::Time deadline) override {
    const Fingerprint fingerprint = FingerprintOf(spec);
    {
      absl::MutexLock lock(&mu_);
      const auto known = specs_.find(fingerprint);
      if (known != specs_.end() && alive()) return known->second;
    }
    v1::OpenSpecRequest request;
    *request.mutable_spec() = wire::ToMessage(spec);
    request.set_expected_fingerprint(wire::ToBytes(fingerprint));
    REPRISE_ASSIGN_OR_RETURN(const v1::OpenSpecResponse response,
                             Call<v1::OpenSpecResponse>(&Stub::OpenSpec, request, deadline));
    OpenedSpec opened{.handle = SpecHandle(response.spec_handle()),
                      .block_bytes = response.block_bytes(),
                      .replication = response.replication()};
    REPRISE_ASSIGN_OR_RETURN(opened.fingerprint,
                             wire::FingerprintFromBytes(response.fingerprint(), "fingerprint"));
    absl::MutexLock lock(&mu_);
    specs_[fingerprint] = opened;
    return opened;
  }

  absl::StatusOr<uint32_t> Lookup(SpecHandle spec, std::span<const BlockKey> keys,
                                  absl::Time deadline) override {
    v1::LookupRequest request;
    request.set_spec_handle(spec.value);
    request.set_keys(PackKeys(keys));
    REPRISE_ASSIGN_OR_RETURN(
        const v1::LookupResponse response,
        Ask<v1::LookupResponse>(Verb::kLookup, &Stub::Lookup, request, deadline));
    return response.run_blocks();
  }

  absl::StatusOr<AcquiredRun> Acquire(SpecHandle spec, std::span<const BlockKey> keys,
                                      uint32_t first_block, absl::Time deadline) override {
    v1::AcquireRequest request;
    request.set_spec_handle(spec.value);
    request.set_keys(PackKeys(keys));
    request.set_first_block(first_block);
    REPRISE_ASSIGN_OR_RETURN(
        const v1::AcquireResponse response,
        Ask<v1::AcquireResponse>(Verb::kAcquire, &Stub::Acquire, request, deadline));
    AcquiredRun run{.lease = LeaseId(response.lease_id()),
                    .run_blocks = response.run_blocks(),
                    .first_block = first_block};
    REPRISE_ASSIGN_OR_RETURN(run.checksums, UnpackChecksums(response.checksums(), "checksums"));
    REPRISE_ASSIGN_OR_RETURN(run.tiers, wire::FromMessage(response.tiers()));
    const size_t leased =
        run.lease && run.run_blocks > first_block ? run.run_blocks - first_block : 0;
    if (run.run_blocks > keys.size() || run.checksums.size() != leased) {
      return Refusal(absl::StatusCode::kInternal, "ACQUIRE_ANSWER",
                     absl::StrCat("the shard at ", address_, " answered ", run.run_blocks,
                                  " run_blocks and ", run.checksums.size(), " checksums for ",
                                  keys.size(), " keys from block ", first_block));
    }
    return run;
  }

  absl::Status Release(LeaseId lease, absl::Time deadline) override {
    v1::ReleaseRequest request;
    request.add_lease_ids(lease.value);
    return Ask<v1::ReleaseResponse>(Verb::kRelease, &Stub::Release, request, deadline).status();
  }

  absl::StatusOr<ReservedRun> Reserve(const ReserveCall& call, absl::Time deadline) override {
    v1::ReserveRequest request;
    request.set_spec_handle(call.spec.value);
    request.set_keys(PackKeys(call.keys));
    request.set_session_id(call.session_id);
    request.mutable_token_positions()->Add(call.token_positions.begin(),
                                           call.token_positions.end());
    request.mutable_token_ids()->Add(call.token_ids.begin(), call.token_ids.end());
    request.set_replica(call.replica);
    request.set_spare_room(call.spare_room);
    REPRISE_ASSIGN_OR_RETURN(
        const v1::ReserveResponse response,
        Ask<v1::ReserveResponse>(Verb::kReserve, &Stub::Reserve, request, deadline));
    ReservedRun run{.reservation = ReservationId(response.reservation_id())};
    REPRISE_ASSIGN_OR_RETURN(run.outcomes, wire::FromMessage(response.outcomes()));
    if (run.outcomes.size() != call.keys.size()) {
      return Refusal(absl::StatusCode::kInternal, "RESERVE_ANSWER",
                     absl::StrCat("the shard at ", address_, " answered ", run.outcomes.size(),
                                  " outcomes for ", call.keys.size(), " keys"));
    }
    return run;
  }

  absl::StatusOr<CommittedRun> Commit(ReservationId reservation, std::span<const uint32_t> blocks,
                                      std::span<const Checksum128> checksums,
                                      absl::Time deadline) override {
    v1::CommitRequest request = CommitOf(reservation, blocks, checksums);
    REPRISE_ASSIGN_OR_RETURN(
        const v1::CommitResponse response,
        Ask<v1::CommitResponse>(Verb::kCommit, &Stub::Commit, request, deadline));
    return CommittedOf(response);
  }

  std::unique_ptr<PendingCommit> StartCommit(ReservationId reservation,
                                             std::span<const uint32_t> blocks,
                                             std::span<const Checksum128> checksums,
                                             absl::Time deadline) override;

  absl::StatusOr<PulledRun> Pull(const PullCall& call, absl::Time deadline) override {
    v1::PullRequest request;
    request.set_spec_handle(call.spec.value);
    request.set_keys(PackKeys(call.keys));
    request.set_session_id(call.session_id);
    request.mutable_token_ids()->Add(call.token_ids.begin(), call.token_ids.end());
    request.set_from_shard_id(call.from.name);
    REPRISE_ASSIGN_OR_RETURN(const v1::PullResponse response,
                             Call<v1::PullResponse>(&Stub::Pull, request, deadline));
    return PulledRun{.run_blocks = response.run_blocks(),
                     .pulled_blocks = response.pulled_blocks(),
                     .from = {response.from_shard_id()}};
  }

  absl::StatusOr<HintResult> Hint(const HintCall& call, absl::Time deadline) override {
    v1::HintRequest request;
    request.set_spec_handle(call.spec.value);
    request.set_keys(PackKeys(call.keys));
    wire::ToMessage(call.hint, request);
    REPRISE_ASSIGN_OR_RETURN(const v1::HintResponse response,
                             Call<v1::HintResponse>(&Stub::Hint, request, deadline));
    return wire::FromMessage(response);
  }

 private:
  class GrpcPendingCommit;

  static v1::CommitRequest CommitOf(ReservationId reservation, std::span<const uint32_t> blocks,
                                    std::span<const Checksum128> checksums) {
    v1::CommitRequest request;
    request.set_reservation_id(reservation.value);
    request.mutable_blocks()->Add(blocks.begin(), blocks.end());
    request.set_checksums(PackChecksums(checksums));
    return request;
  }

  // One verb of this attachment, over the shard's tcp port where that is possible. What was asked
  // and not answered there is asked again over gRPC: a lease or a reservation that nobody knows of
  // ends by its time.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Ask(Verb verb,
                               grpc::Status (Stub::*rpc)(grpc::ClientContext*, const Request&,
                                                         Response*),
                               Request& request, absl::Time deadline) {
    if (tcp_ != nullptr) {
      REPRISE_RETURN_IF_ERROR(MayCall(deadline));
      const auto answer = tcp_->Ask(verb, request.SerializeAsString(), deadline);
      if (answer.has_value()) {
        REPRISE_RETURN_IF_ERROR(Heard(answer->status()));
        Response response;
        if (response.ParseFromString(**answer)) return response;
        return Refusal(absl::StatusCode::kInternal, "TCP_ANSWER",
                       absl::StrCat("the shard at ", address_, " answered ",
                                    Response::descriptor()->full_name(), " with other bytes"));
      }
    }
    return Call(rpc, request, deadline);
  }

  // One unary verb of this attachment, over gRPC.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*rpc)(grpc::ClientContext*, const Request&,
                                                          Response*),
                                Request& request, absl::Time deadline) {
    REPRISE_RETURN_IF_ERROR(MayCall(deadline));
    request.set_attachment_id(attachment_.value);
    grpc::ClientContext context;
    context.set_deadline(wire::ToGprDeadline(deadline));
    Response response;
    REPRISE_RETURN_IF_ERROR(
        Heard(wire::FromGrpcStatus((stub_.get()->*rpc)(&context, request, &response))));
    return response;
  }

  absl::Status MayCall(absl::Time deadline) const {
    if (!alive()) return ShardGone(address_);
    if (absl::Now() < deadline) return absl::OkStatus();
    return Refusal(absl::StatusCode::kDeadlineExceeded, "DEADLINE_OVER",
                   "the deadline was over before the call began: nothing was asked");
  }

  // What a call ended with.
  absl::Status Heard(const absl::Status& status) const {
    // The shard does not know us any more: it restarted, or called us silent.
    if (RefusalReason(status) != "ATTACHMENT_UNKNOWN") return status;
    attach_->Stop();
    return ShardGone(address_);
  }

  const std::string address_;
  const std::unique_ptr<Stub> stub_;
  const std::shared_ptr<AttachStream> attach_;
  const AttachmentId attachment_;
  const ShardId shard_id_;
  const std::unique_ptr<lanes::Lane> lane_;
  lanes::TcpLane* const tcp_;  // part of lane_; nullptr: verbs go over gRPC

  absl::Mutex mu_;
  absl::flat_hash_map<Fingerprint, OpenedSpec> specs_ ABSL_GUARDED_BY(mu_);
};

// gRPC owns what it fills until the call is over, also when nobody waits for it any more.
class GrpcShardLink::GrpcPendingCommit final : public PendingCommit {
 public:
  GrpcPendingCommit(const GrpcShardLink& link, v1::CommitRequest request, absl::Time deadline)
      : link_(link), refused_(link.MayCall(deadline)) {
    if (!refused_.ok()) return;
    request.set_attachment_id(link.attachment_.value);
    call_->request = std::move(request);
    call_->context.set_deadline(wire::ToGprDeadline(deadline));
    link.stub_->async()->Commit(&call_->context, &call_->request, &call_->response,
                                [call = call_](grpc::Status answer) {
                                  call->answer = std::move(answer);
                                  call->done.Notify();
                                });
  }
  ~GrpcPendingCommit() override {
    if (refused_.ok() && !call_->done.HasBeenNotified()) call_->context.TryCancel();
  }

  absl::StatusOr<CommittedRun> Await(absl::Time deadline) override {
    REPRISE_RETURN_IF_ERROR(refused_);
    if (!call_->done.WaitForNotificationWithDeadline(deadline)) {
      return Refusal(absl::StatusCode::kDeadlineExceeded, "COMMIT_DEADLINE",
                     absl::StrCat("the shard at ", link_.address_, " did not answer a commit"));
    }
    REPRISE_RETURN_IF_ERROR(link_.Heard(wire::FromGrpcStatus(call_->answer)));
    return CommittedOf(call_->response);
  }

 private:
  struct UnaryCall {
    grpc::ClientContext context;
    v1::CommitRequest request;
    v1::CommitResponse response;
    grpc::Status answer;
    absl::Notification done;
  };
  const GrpcShardLink& link_;
  const absl::Status refused_;  // OK: the call was made
  const std::shared_ptr<UnaryCall> call_ = std::make_shared<UnaryCall>();
};

std::unique_ptr<PendingCommit> GrpcShardLink::StartCommit(ReservationId reservation,
                                                          std::span<const uint32_t> blocks,
                                                          std::span<const Checksum128> checksums,
                                                          absl::Time deadline) {
  return std::make_unique<GrpcPendingCommit>(*this, CommitOf(reservation, blocks, checksums),
                                             deadline);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardLink>> ShardLink::Connect(ShardLinkOptions options,
                                                              absl::Time deadline) {
  std::shared_ptr<grpc::Channel> channel = wire::MakeChannel(options.address, options.credentials);
  std::shared_ptr<AttachStream> attach = AttachStream::Start(channel, HelloOf(options));
  absl::StatusOr<v1::AttachResponse::Welcome> answer = attach->AwaitWelcome(deadline);
  if (RefusalReason(answer.status()) == "ENUM_VALUE" && std::erase(options.lanes, LaneKind::kTcp)) {
    // A shard of before the tcp lane refuses whoever has it.
    attach = AttachStream::Start(channel, HelloOf(options));
    answer = attach->AwaitWelcome(deadline);
  }
  REPRISE_RETURN_IF_ERROR(answer.status());
  const v1::AttachResponse::Welcome& welcome = *answer;
  LaneOffer offer{.channel = channel,
                  .attachment = AttachmentId(welcome.attachment_id()),
                  .view_socket = welcome.view_socket(),
                  .tcp_host = wire::HostOfPeer(attach->peer()),
                  .tcp_port = static_cast<uint16_t>(welcome.tcp_port()),
                  .tcp_key = TcpKeyOf(welcome),
                  .nccl = options.nccl,
                  .deadline = deadline};
  for (const int kind : welcome.lanes()) {
    // A lane of a newer version is one that we do not have.
    const absl::StatusOr<LaneKind> known =
        wire::FromMessage(static_cast<v1::LaneKind>(kind), "welcome.lanes");
    if (known.ok()) offer.lanes.push_back(*known);
  }
  // What is encrypted over gRPC is on no lane in plaintext.
  if (options.credentials != nullptr && !offer.tcp_key.has_value()) offer.tcp_port = 0;
  LinkLane made = MakeLane(offer);
  if (made.close) attach->OnEnd(std::move(made.close));
  return std::make_unique<GrpcShardLink>(std::move(options.address), std::move(channel),
                                         std::move(attach), welcome, std::move(made.lane),
                                         made.tcp);
}

}  // namespace reprise::cluster
