// Asks shards to keep what is stored of a chain, or to let it go.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/call_policy.h"
#include "client/cpp/client_core.h"
#include "proto/types/hints.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

absl::Status KnowsNoHints(const std::string& address) {
  return Refusal(absl::StatusCode::kUnimplemented, "HINTS_UNKNOWN",
                 absl::StrCat("shard ", address,
                              " is of a version that knows no hints, and does as without them: "
                              "update it"));
}

// No answer to the question: a store would have gone to the next shard.
bool InTrouble(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kNotFound:  // the attachment is over: the shard restarted
    case absl::StatusCode::kCancelled:
      return true;
    default:
      return false;
  }
}

bool Better(const HintResult& a, const HintResult& b) {
  if (a.outcome != b.outcome) return a.outcome < b.outcome;
  return a.blocks > b.blocks;
}

// One hint's way through the shards.
class HintRound {
 public:
  HintRound(ClientCore& core, const HintCall& call, const CallContext& context)
      : core_(core), call_(call), context_(context) {}

  HintAnswer Run() {
    if (call_.keys.empty()) {
      AskAll();
    } else {
      AskWhereTheChainIs();
    }
    return std::move(answer_);
  }

 private:
  void AskAll() {
    constexpr int kSteps = 3;
    const std::vector<ShardTarget> all =
        core_.routes.AllShards(TryDeadline(absl::Now(), context_.deadline, kSteps));
    if (all.empty()) {
      Note(Refusal(absl::StatusCode::kUnavailable, "NO_SHARD",
                   "no router answered and no shard is known: a claim that is not released ends "
                   "at its time"));
    }
    for (size_t i = 0; i < all.size(); ++i) Ask(all[i].address, all.size() - i);
  }

  void AskWhereTheChainIs() {
    constexpr int kSteps = 3;  // route, placement, holders
    const absl::StatusOr<Route> route =
        core_.routes.OrderAndRuns(RouteCallOf(core_, *call_.spec, call_.session, call_.keys),
                                  TryDeadline(absl::Now(), context_.deadline, kSteps));
    if (!route.ok()) {
      Note(route.status());
      return;
    }
    AskPlaced(*route);
    for (size_t i = 0; i < route->runs.size(); ++i) {
      const std::string& address = route->runs[i].shard.address;
      if (!WasAsked(address)) Ask(address, route->runs.size() - i);
    }
  }

  // Those that a store and its copies reach: the first of the order that are not in trouble.
  void AskPlaced(const Route& route) {
    uint32_t living = 0;
    for (size_t i = 0; i < Reach(route) && living < replication_; ++i) {
      if (Ask(route.order[i].address, Reach(route) - i + route.runs.size())) ++living;
    }
  }

  size_t Reach(const Route& route) const {
    return std::min<size_t>(route.order.size(), limits::kStoreTargetsMax + replication_ - 1);
  }

  bool WasAsked(const std::string& address) const {
    return std::find(asked_.begin(), asked_.end(), address) != asked_.end();
  }

  // True when the shard lives, whatever it said.
  bool Ask(const std::string& address, size_t tries_left) {
    asked_.push_back(address);
    absl::Status status = context_.Check();
    if (status.ok()) {
      status =
          AskAt(address, TryDeadline(absl::Now(), context_.deadline, static_cast<int>(tries_left)));
    }
    Note(status);
    return !InTrouble(status);
  }

  // Once more when the link turned out to be broken.
  absl::Status AskAt(const std::string& address, absl::Time deadline) {
    constexpr int kTries = 2;
    for (int tries_left = kTries;; --tries_left) {
      REPRISE_ASSIGN_OR_RETURN(const OpenShard shard,
                               OpenAt(core_, address, call_.spec->spec, deadline));
      replication_ = std::max(replication_, shard.spec.replication);
      const absl::Time started = absl::Now();
      const absl::StatusOr<HintResult> result = shard.link->Hint(
          {.spec = shard.spec.handle, .keys = call_.keys, .hint = call_.hint}, deadline);
      // An older shard is well, and must not be left out by those who read and store.
      const bool older = absl::IsUnimplemented(result.status());
      ReportCall(core_, shard, older ? absl::OkStatus() : result.status(), started, deadline);
      if (older) return KnowsNoHints(address);
      if (result.ok()) {
        if (answer_.shards == 0 || Better(*result, answer_.result)) answer_.result = *result;
        ++answer_.shards;
        return absl::OkStatus();
      }
      if (tries_left == 1 || !LinkBroke(shard, result.status())) return result.status();
    }
  }

  // The first thing that went wrong is what a person wants to read.
  void Note(const absl::Status& status) {
    if (answer_.status.ok()) answer_.status = status;
  }

  ClientCore& core_;
  const HintCall& call_;
  const CallContext& context_;
  uint32_t replication_ = 1;  // as the shards that were opened say
  std::vector<std::string> asked_;
  HintAnswer answer_;
};

}  // namespace

absl::Status CheckHintCall(const HintCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckAcquire({.spec = call.spec,
                                        .keys = call.keys,
                                        .session = call.session,
                                        .first_block = 0,
                                        .timeout = absl::ZeroDuration()}));
  return CheckHint(call.hint, call.keys.size());
}

HintAnswer HintShards(const CorePtr& core, const HintCall& call, const CallContext& context) {
  HintAnswer answer = HintRound(*core, call, context).Run();
  Counters& counters = core->counters;
  counters.hints += 1;
  if (!answer.status.ok()) counters.calls_failed += 1;
  if (absl::IsDeadlineExceeded(answer.status)) counters.calls_late += 1;
  return answer;
}

}  // namespace reprise::client
