#include "client/cpp/router_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/cpp/call_policy.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/deadline.h"
#include "proto/wire/enums.h"
#include "proto/wire/status.h"
#include "reprise/v1/router.grpc.pb.h"

namespace reprise::client {
namespace {

ShardTarget FromMessage(const v1::ShardAddress& message) {
  return {ShardId{message.shard_id()}, message.address()};
}

v1::RouteSessionRequest ToMessage(const RouteCall& call) {
  v1::RouteSessionRequest request;
  request.set_session_id(call.session);
  // Without a session the first key stands for it, so it is sent even when nobody asks for runs.
  if (!call.keys.empty()) {
    request.set_keys(PackKeys(call.keys));
    request.set_fingerprint(call.fingerprint.bytes.data(), kDigestBytes);
  }
  if (call.compute_block > absl::ZeroDuration() && call.block_bytes > 0) {
    constexpr int64_t kMicrosecondsMax = std::numeric_limits<uint32_t>::max();
    v1::RecomputeCost& cost = *request.mutable_recompute();
    cost.set_block_bytes(call.block_bytes);
    cost.set_block_microseconds(static_cast<uint32_t>(
        std::clamp<int64_t>(absl::ToInt64Microseconds(call.compute_block), 1, kMicrosecondsMax)));
  }
  return request;
}

absl::StatusOr<Route> RouteOf(const v1::RouteSessionRequest& request,
                              const v1::RouteSessionResponse& response) {
  Route route;
  route.order.push_back(FromMessage(response.home()));
  for (const auto& fallback : response.fallbacks()) route.order.push_back(FromMessage(fallback));
  route.runs_known = !request.keys().empty();
  for (const auto& run : response.runs()) {
    REPRISE_ASSIGN_OR_RETURN(const Tier tier, wire::FromMessage(run.tier(), "runs.tier"));
    route.runs.push_back({FromMessage(run.shard()), run.blocks(), tier});
  }
  return route;
}

// A RouteSession in the background. gRPC's from its begin to `done`.
struct BackgroundCall {
  absl::StatusOr<Route> AnswerOf(const grpc::Status& status) const {
    if (!status.ok()) return wire::FromGrpcStatus(status);
    return RouteOf(request, response);
  }
  grpc::ClientContext context;
  v1::RouteSessionRequest request;
  v1::RouteSessionResponse response;
  RouterClient::RouteHeard heard;
  absl::StatusOr<Route> answer;
  bool answered = false;  // be it a refusal
  absl::Notification done;
};

// The routers, which of them are worth asking, and the calls to them that nobody may wait for.
//
// Invariants: such calls are limits::kClientQueueJobsMax at most; one ends with this, and its
// context, which keeps a channel, never on a thread of gRPC's. Thread safety: all methods may be
// called from any thread.
class Routers {
 public:
  Routers(std::vector<std::string> addresses,
          const std::shared_ptr<const wire::Credentials>& credentials) {
    for (std::string& address : addresses) {
      auto channel = wire::MakeChannel(address, credentials);
      routers_.push_back({std::move(address), v1::RouterService::NewStub(channel), Breaker()});
    }
  }
  ~Routers() {
    std::vector<std::shared_ptr<BackgroundCall>> calls;
    {
      absl::MutexLock lock(&mu_);
      calls = under_way_;
    }
    // Without the lock: gRPC may end a call on the thread that cancels it.
    for (const auto& call : calls) call->context.TryCancel();
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](std::vector<std::shared_ptr<BackgroundCall>>* calls) { return calls->empty(); },
        &under_way_));
  }

  v1::RouterService::Stub& stub(size_t index) { return *routers_[index].stub; }

  // Those to ask, best first; `except` is not one of them.
  std::vector<size_t> Order(std::optional<size_t> except = std::nullopt) const {
    absl::MutexLock lock(&mu_);
    std::vector<size_t> order;
    for (size_t i = 0; i < routers_.size(); ++i) {
      const size_t index = (first_ + i) % routers_.size();
      if (index != except) order.push_back(index);
    }
    return order;
  }
  bool Allowed(size_t index) {
    absl::MutexLock lock(&mu_);
    return routers_[index].breaker.Allow(MonotonicClock().Now());
  }
  // Whether it is an answer, whatever it says.
  bool Report(size_t index, const absl::Status& status, absl::Duration budget) {
    const Verdict verdict = Judge(status, budget);
    absl::MutexLock lock(&mu_);
    routers_[index].breaker.Report(verdict, MonotonicClock().Now());
    if (verdict == Verdict::kGood) first_ = index;
    return verdict == Verdict::kGood;
  }

  // False when as many are under way as may be.
  bool Begin(std::shared_ptr<BackgroundCall> call) {
    std::vector<std::shared_ptr<BackgroundCall>> over;
    absl::MutexLock lock(&mu_);
    over.swap(over_);
    if (under_way_.size() >= limits::kClientQueueJobsMax) return false;
    under_way_.push_back(std::move(call));
    return true;
  }
  // The last thing that gRPC's thread does with it.
  void End(const BackgroundCall* call) {
    absl::MutexLock lock(&mu_);
    const auto at = std::find_if(under_way_.begin(), under_way_.end(),
                                 [call](const auto& other) { return other.get() == call; });
    over_.push_back(std::move(*at));
    under_way_.erase(at);
  }

 private:
  struct Router {
    std::string address;
    std::unique_ptr<v1::RouterService::Stub> stub;
    Breaker breaker;
  };
  mutable absl::Mutex mu_;
  size_t first_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::shared_ptr<BackgroundCall>> under_way_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<BackgroundCall>> over_ ABSL_GUARDED_BY(mu_);  // until the next begins
  std::vector<Router> routers_;                                             // breakers: under mu_
};

using Call = std::function<grpc::Status(v1::RouterService::Stub&, grpc::ClientContext*)>;

// One router after the other, until one answers. `last` is what there is to say when there is none.
absl::Status AskInTurn(Routers& routers, const std::vector<size_t>& order, absl::Time deadline,
                       absl::Status last, const Call& call) {
  for (size_t i = 0; i < order.size(); ++i) {
    if (!routers.Allowed(order[i])) continue;
    const absl::Time now = absl::Now();
    const absl::Time until = TryDeadline(now, deadline, static_cast<int>(order.size() - i));
    grpc::ClientContext context;
    context.set_deadline(wire::ToGprDeadline(until));
    last = wire::FromGrpcStatus(call(routers.stub(order[i]), &context));
    if (routers.Report(order[i], last, until - now)) return last;
  }
  return last;
}

absl::Status NobodyToAsk() {
  return Refusal(absl::StatusCode::kUnavailable, "ROUTERS_OUT",
                 "every router is left out for a while after failures");
}

// Asks the first router in the background; the others, when that one fails or nobody could be asked
// in the background, when somebody waits.
class GrpcPendingRoute final : public PendingRoute {
 public:
  // REQUIRES: `routers` outlives this.
  GrpcPendingRoute(Routers& routers, v1::RouteSessionRequest request, absl::Time deadline,
                   RouterClient::RouteHeard heard)
      : routers_(routers) {
    call_->request = std::move(request);
    call_->heard = std::move(heard);
    if (!routers_.Begin(call_)) {
      AskNobody();
      return;
    }
    std::vector<size_t> order = routers_.Order();
    while (!order.empty() && !routers_.Allowed(order.front())) order.erase(order.begin());
    if (order.empty()) {
      routers_.End(call_.get());
      AskNobody();
      return;
    }
    asked_ = order.front();
    const absl::Time now = absl::Now();
    const absl::Time until = TryDeadline(now, deadline, static_cast<int>(order.size()));
    call_->context.set_deadline(wire::ToGprDeadline(until));
    routers_.stub(*asked_).async()->RouteSession(
        &call_->context, &call_->request, &call_->response,
        [call = call_.get(), routers = &routers_, index = *asked_,
         budget = until - now](const grpc::Status& status) {
          call->answered = routers->Report(index, wire::FromGrpcStatus(status), budget);
          call->answer = call->AnswerOf(status);
          if (call->answer.ok()) call->heard(*call->answer);
          call->done.Notify();
          routers->End(call);
        });
  }

  absl::StatusOr<Route> Await(absl::Time deadline) override {
    if (!call_->done.WaitForNotificationWithDeadline(deadline)) {
      return absl::DeadlineExceededError("no router answered in time");
    }
    if (call_->answered) return call_->answer;
    v1::RouteSessionResponse response;
    REPRISE_RETURN_IF_ERROR(
        AskInTurn(routers_, routers_.Order(asked_), deadline, call_->answer.status(),
                  [&](v1::RouterService::Stub& stub, grpc::ClientContext* context) {
                    return stub.RouteSession(context, call_->request, &response);
                  }));
    absl::StatusOr<Route> route = RouteOf(call_->request, response);
    if (route.ok()) call_->heard(*route);
    return route;
  }

 private:
  void AskNobody() {
    call_->answer = NobodyToAsk();
    call_->done.Notify();
  }

  Routers& routers_;
  const std::shared_ptr<BackgroundCall> call_ = std::make_shared<BackgroundCall>();
  std::optional<size_t> asked_;  // nullopt: nobody yet
};

class GrpcRouterClient final : public RouterClient {
 public:
  GrpcRouterClient(std::vector<std::string> addresses,
                   const std::shared_ptr<const wire::Credentials>& credentials)
      : routers_(std::move(addresses), credentials) {}

  absl::StatusOr<Route> RouteSession(const RouteCall& call, absl::Time deadline) override {
    const v1::RouteSessionRequest request = ToMessage(call);
    v1::RouteSessionResponse response;
    REPRISE_RETURN_IF_ERROR(
        AskInTurn(routers_, routers_.Order(), deadline, NobodyToAsk(),
                  [&](v1::RouterService::Stub& stub, grpc::ClientContext* context) {
                    return stub.RouteSession(context, request, &response);
                  }));
    return RouteOf(request, response);
  }

  std::unique_ptr<PendingRoute> StartRouteSession(const RouteCall& call, absl::Time deadline,
                                                  RouteHeard heard) override {
    return std::make_unique<GrpcPendingRoute>(routers_, ToMessage(call), deadline,
                                              std::move(heard));
  }

  absl::StatusOr<std::vector<ShardTarget>> Shards(absl::Time deadline) override {
    v1::RouterServiceDescribeResponse response;
    REPRISE_RETURN_IF_ERROR(
        AskInTurn(routers_, routers_.Order(), deadline, NobodyToAsk(),
                  [&](v1::RouterService::Stub& stub, grpc::ClientContext* context) {
                    return stub.Describe(context, v1::RouterServiceDescribeRequest(), &response);
                  }));
    std::vector<ShardTarget> targets;
    for (const auto& shard : response.shards()) targets.push_back(FromMessage(shard.shard()));
    return targets;
  }

 private:
  Routers routers_;
};

}  // namespace

std::unique_ptr<RouterClient> MakeGrpcRouterClient(
    std::vector<std::string> addresses,
    const std::shared_ptr<const wire::Credentials>& credentials) {
  REPRISE_CHECK(!addresses.empty());
  return std::make_unique<GrpcRouterClient>(std::move(addresses), credentials);
}

}  // namespace reprise::client
