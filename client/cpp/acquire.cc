// Finds the longest stored prefix and leases it.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client_core.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

// Leases blocks [first_block, ...) at one shard; once more when its link turned out to be broken.
absl::StatusOr<Segment> AcquireAt(ClientCore& core, const std::string& address,
                                  const AcquireCall& call, uint32_t first_block,
                                  absl::Time deadline) {
  constexpr int kTries = 2;
  for (int tries_left = kTries;; --tries_left) {
    REPRISE_ASSIGN_OR_RETURN(OpenShard shard, OpenAt(core, address, call.spec->spec, deadline));
    const absl::Time started = absl::Now();
    absl::StatusOr<cluster::AcquiredRun> run =
        shard.link->Acquire(shard.spec.handle, call.keys, first_block, deadline);
    ReportCall(core, shard, run.status(), started, deadline);
    if (run.ok()) {
      // A run that ends before first_block leases nothing, and says how far it goes.
      return Segment{.address = address,
                     .link = shard.link,
                     .lease = run->lease,
                     .first = std::min(first_block, run->run_blocks),
                     .end = run->run_blocks,
                     .checksums = std::move(run->checksums),
                     .tiers = std::move(run->tiers)};
    }
    if (tries_left == 1 || !LinkBroke(shard, run.status())) return run.status();
  }
}

// Other shards in the order in which to ask them: those said to hold more than `than` blocks,
// longest first; or, when nobody said who holds what, all of them in placement order. The first two
// of the placement order, home and replica, are asked in any case: a router's knowledge may lag
// behind what was stored a moment ago.
std::vector<std::string> Candidates(const Route& route, uint32_t than,
                                    const std::vector<std::string>& except) {
  std::vector<std::string> addresses;
  const auto add = [&](const std::string& address) {
    const auto is = [&](const std::string& other) { return other == address; };
    if (std::none_of(except.begin(), except.end(), is) &&
        std::none_of(addresses.begin(), addresses.end(), is)) {
      addresses.push_back(address);
    }
  };
  for (const LocatedRun& run : route.runs) {
    if (run.blocks > than) add(run.shard.address);
  }
  constexpr size_t kHomeAndReplica = 2;
  const size_t blind = route.runs_known ? kHomeAndReplica : route.order.size();
  for (size_t i = 0; i < std::min(blind, route.order.size()); ++i) add(route.order[i].address);
  return addresses;
}

// One acquire call's way through the shards.
class Search {
 public:
  Search(const CorePtr& core, const AcquireCall& call, const CallContext& context)
      : core_(core),
        call_(call),
        context_(context),
        route_call_(RouteCallOf(*core, *call.spec, call.session, call.keys)) {}

  AcquireResult Run() {
    absl::StatusOr<Route> route = FindHome();
    if (!route.ok()) {
      Note(route.status());
      return Result();
    }
    AskHome(*route);
    core_->routes.NoteRanOut(route_call_, found_ < call_.keys.size());
    if (found_ < call_.keys.size() && context_.Check().ok()) {
      AskOthers(*route);
    } else if (WorthASecondSource()) {
      AskSecondSource();
    }
    Note(found_ < call_.keys.size() ? context_.Check() : absl::OkStatus());
    return Result();
  }

 private:
  // A home that is remembered and attached is asked at once; routers meanwhile, where it may be
  // another one by now, or where others had more than it before.
  absl::StatusOr<Route> FindHome() {
    constexpr int kSteps = 3;  // route, home, others
    const absl::Time deadline = TryDeadline(absl::Now(), context_.deadline, kSteps);
    std::optional<RouteMemory::Recalled> known = core_->routes.Recall(route_call_);
    if (!known.has_value() || known->order.empty() ||
        !core_->shards.Attached(known->order.front().address)) {
      return core_->routes.Order(route_call_, deadline);
    }
    if (known->age >= limits::kRouteTtl || known->ran_out) {
      asked_routers_ = core_->routes.Ask(route_call_, deadline);
    }
    return Route{.order = std::move(known->order), .runs_known = false, .runs = {}};
  }

  // Who holds what. `steps` are left of the caller's time, this one included.
  absl::StatusOr<Route> FindRuns(int steps) {
    const absl::Time deadline = TryDeadline(absl::Now(), context_.deadline, steps);
    if (asked_routers_ == nullptr) return core_->routes.OrderAndRuns(route_call_, deadline);
    const std::unique_ptr<PendingRoute> asked = std::move(asked_routers_);
    return core_->routes.Await(*asked, route_call_, deadline);
  }

  void AskHome(const Route& route) {
    if (route.order.empty()) return;
    Ask(route.order.front().address, TryDeadline(absl::Now(), context_.deadline, 2));
    if (!status_.ok()) core_->routes.Forget(route_call_);
  }

  void AskOthers(Route route) {
    if (!route.runs_known) {
      absl::StatusOr<Route> fresh = FindRuns(2);
      if (fresh.ok()) route = *std::move(fresh);
    }
    std::vector<std::string> candidates = Candidates(route, found_, asked_);
    // Home answered: what it does not have its replica has only if the router says so. A home that
    // is another one by now was not asked yet, and is, as every home.
    if (status_.ok() && route.runs_known) {
      std::erase_if(candidates, [&](const std::string& address) {
        if (!route.order.empty() && address == route.order.front().address) return false;
        return std::none_of(route.runs.begin(), route.runs.end(), [&](const LocatedRun& run) {
          return run.shard.address == address && run.blocks > found_;
        });
      });
    }
    for (size_t i = 0; i < candidates.size() && found_ < call_.keys.size(); ++i) {
      if (!context_.Check().ok()) return;
      Ask(candidates[i],
          TryDeadline(absl::Now(), context_.deadline, static_cast<int>(candidates.size() - i)));
    }
  }

  // A long run that comes over the network comes faster from two shards than from one.
  bool WorthASecondSource() const {
    if (segments_.size() != 1 || !context_.Check().ok()) return false;
    const uint64_t blocks = segments_.front().end - segments_.front().first;
    return blocks * call_.spec->stored.block_bytes >= limits::kParallelFetchBytesMin &&
           IsHostNetwork(segments_.front().link->lane().kind());
  }

  void AskSecondSource() {
    const absl::StatusOr<Route> route = FindRuns(3);
    if (!route.ok()) return;
    for (const LocatedRun& run : route->runs) {
      if (run.shard.address == segments_.front().address || run.blocks < found_) continue;
      const absl::Time deadline = TryDeadline(absl::Now(), context_.deadline, 2);
      absl::StatusOr<Segment> second =
          AcquireAt(*core_, run.shard.address, call_, call_.first_block, deadline);
      if (second.ok() && second->end > second->first) segments_.push_back(*std::move(second));
      return;
    }
  }

  void Ask(const std::string& address, absl::Time deadline) {
    asked_.push_back(address);
    const uint32_t first = std::max(found_, call_.first_block);
    absl::StatusOr<Segment> segment = AcquireAt(*core_, address, call_, first, deadline);
    if (!segment.ok()) {
      Note(segment.status());
      return;
    }
    if (segment->end <= found_) return;
    found_ = segment->end;
    // Blocks before first_block may be found, and none leased.
    segments_.push_back(*std::move(segment));
  }

  // The first thing that went wrong is what a person wants to read.
  void Note(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

  AcquireResult Result() {
    // A failure on the way does not matter to a caller who has everything.
    if (found_ == call_.keys.size()) status_ = absl::OkStatus();
    RunOrigin origin{call_.spec, call_.session, call_.keys, call_.first_block};
    return {
        std::make_shared<client::Run>(std::move(origin), std::move(segments_), MakeReleaser(core_)),
        status_};
  }

  const CorePtr& core_;
  const AcquireCall& call_;
  const CallContext& context_;
  const RouteCall route_call_;
  std::unique_ptr<PendingRoute> asked_routers_;  // nullptr: not asked, or heard
  uint32_t found_ = 0;
  std::vector<Segment> segments_;
  std::vector<std::string> asked_;
  absl::Status status_;
};

}  // namespace

absl::Status CheckAcquire(const AcquireCall& call) {
  if (call.spec == nullptr) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SPEC_UNSET",
                   "spec is not set: open one with OpenSpec");
  }
  if (call.keys.size() > limits::kPromptBlocksMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "KEYS_TOO_MANY",
                   absl::StrCat("keys has ", call.keys.size(), " entries, more than ",
                                limits::kPromptBlocksMax, ": ask for a shorter prefix"));
  }
  if (call.session.size() > limits::kNameBytesMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SESSION_TOO_LONG",
                   absl::StrCat("session has ", call.session.size(), " bytes, more than ",
                                limits::kNameBytesMax, ": give a shorter name or its digest"));
  }
  return absl::OkStatus();
}

AcquireResult AcquireRun(const CorePtr& core, const AcquireCall& call, const CallContext& context) {
  Counters& counters = core->counters;
  counters.acquires += 1;
  counters.blocks_asked += call.keys.size();
  AcquireResult result;
  if (!call.keys.empty()) {
    result.run = core->prefetched.Take(call.spec->fingerprint, call.keys, call.first_block);
    if (result.run != nullptr) counters.prefetch_hits += 1;
  }
  if (result.run == nullptr && call.keys.empty()) {
    RunOrigin origin{call.spec, call.session, {}, call.first_block};
    result.run =
        std::make_shared<Run>(std::move(origin), std::vector<Segment>(), MakeReleaser(core));
  } else if (result.run == nullptr) {
    result = Search(core, call, context).Run();
  }
  counters.blocks_found += result.run->blocks();
  if (!result.status.ok()) counters.calls_failed += 1;
  if (absl::IsDeadlineExceeded(result.status)) counters.calls_late += 1;
  return result;
}

absl::StatusOr<Segment> AcquireElsewhere(const CorePtr& core, const AcquireCall& call,
                                         const std::vector<std::string>& except,
                                         absl::Time deadline) {
  const RouteCall route_call = RouteCallOf(*core, *call.spec, call.session, call.keys);
  core->routes.Forget(route_call);
  REPRISE_ASSIGN_OR_RETURN(
      const Route route,
      core->routes.OrderAndRuns(route_call, TryDeadline(absl::Now(), deadline, 3)));
  std::vector<std::string> candidates = Candidates(route, call.first_block, except);
  absl::Status last = absl::NotFoundError("no other shard holds the rest of the run");
  for (size_t i = 0; i < candidates.size(); ++i) {
    // One share more than there are candidates: time to read what is found.
    const absl::Time until =
        TryDeadline(absl::Now(), deadline, static_cast<int>(candidates.size() - i) + 1);
    absl::StatusOr<Segment> segment =
        AcquireAt(*core, candidates[i], call, call.first_block, until);
    if (segment.ok() && segment->end > call.first_block) return segment;
    if (!segment.ok()) last = segment.status();
  }
  return last;
}

}  // namespace reprise::client
