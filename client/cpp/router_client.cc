#include "client/cpp/router_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cpp/call_policy.h"
#include "proto/types/clock.h"
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

class GrpcRouterClient final : public RouterClient {
 public:
  GrpcRouterClient(std::vector<std::string> addresses,
                   const std::shared_ptr<const wire::Credentials>& credentials) {
    for (std::string& address : addresses) {
      auto channel = wire::MakeChannel(address, credentials);
      routers_.push_back({std::move(address), v1::RouterService::NewStub(channel), Breaker()});
    }
  }

  absl::StatusOr<Route> RouteSession(const RouteCall& call, absl::Time deadline) override {
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
    v1::RouteSessionResponse response;
    REPRISE_RETURN_IF_ERROR(
        Ask(deadline, [&](v1::RouterService::Stub& stub, grpc::ClientContext* context) {
          return stub.RouteSession(context, request, &response);
        }));
    Route route;
    route.order.push_back(FromMessage(response.home()));
    for (const auto& fallback : response.fallbacks()) route.order.push_back(FromMessage(fallback));
    route.runs_known = !call.keys.empty();
    for (const auto& run : response.runs()) {
      REPRISE_ASSIGN_OR_RETURN(const Tier tier, wire::FromMessage(run.tier(), "runs.tier"));
      route.runs.push_back({FromMessage(run.shard()), run.blocks(), tier});
    }
    return route;
  }

  absl::StatusOr<std::vector<ShardTarget>> Shards(absl::Time deadline) override {
    v1::RouterServiceDescribeResponse response;
    REPRISE_RETURN_IF_ERROR(
        Ask(deadline, [&](v1::RouterService::Stub& stub, grpc::ClientContext* context) {
          return stub.Describe(context, v1::RouterServiceDescribeRequest(), &response);
        }));
    std::vector<ShardTarget> targets;
    for (const auto& shard : response.shards()) targets.push_back(FromMessage(shard.shard()));
    return targets;
  }

 private:
  struct Router {
    std::string address;
    std::unique_ptr<v1::RouterService::Stub> stub;
    Breaker breaker;
  };

  bool Allowed(size_t index) {
    absl::MutexLock lock(&mu_);
    return routers_[index].breaker.Allow(MonotonicClock().Now());
  }
  void Report(size_t index, const absl::Status& status, absl::Duration budget) {
    absl::MutexLock lock(&mu_);
    const Verdict verdict = Judge(status, budget);
    routers_[index].breaker.Report(verdict, MonotonicClock().Now());
    if (verdict == Verdict::kGood) first_ = index;
  }

  absl::Status Ask(
      absl::Time deadline,
      const std::function<grpc::Status(v1::RouterService::Stub&, grpc::ClientContext*)>& call) {
    size_t first;
    {
      absl::MutexLock lock(&mu_);
      first = first_;
    }
    absl::Status last = Refusal(absl::StatusCode::kUnavailable, "ROUTERS_OUT",
                                "every router is left out for a while after failures");
    for (size_t i = 0; i < routers_.size(); ++i) {
      const size_t index = (first + i) % routers_.size();
      if (!Allowed(index)) continue;
      const absl::Time now = absl::Now();
      const absl::Time until = TryDeadline(now, deadline, static_cast<int>(routers_.size() - i));
      grpc::ClientContext context;
      context.set_deadline(wire::ToGprDeadline(until));
      last = wire::FromGrpcStatus(call(*routers_[index].stub, &context));
      Report(index, last, until - now);
      if (Judge(last, until - now) == Verdict::kGood) return last;
    }
    return last;
  }

  absl::Mutex mu_;
  size_t first_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Router> routers_;  // breakers: under mu_
};

}  // namespace

std::unique_ptr<RouterClient> MakeGrpcRouterClient(
    std::vector<std::string> addresses,
    const std::shared_ptr<const wire::Credentials>& credentials) {
  REPRISE_CHECK(!addresses.empty());
  return std::make_unique<GrpcRouterClient>(std::move(addresses), credentials);
}

}  // namespace reprise::client
