// Gets ready what a prompt that has not come yet will ask for.
#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/cpp/call_policy.h"
#include "client/cpp/client_core.h"

namespace reprise::client {
namespace {

bool LiesAt(const Run& run, const std::string& address) {
  const std::vector<Segment> segments = run.segments();
  return std::all_of(segments.begin(), segments.end(),
                     [&](const Segment& segment) { return segment.address == address; });
}

// True when the session's home stores now what it did not.
bool BroughtHome(ClientCore& core, const AcquireCall& call, const Run& run,
                 const CallContext& context) {
  const absl::StatusOr<Route> route =
      core.routes.Order(RouteCallOf(core, *call.spec, call.session, call.keys),
                        TryDeadline(absl::Now(), context.deadline, 3));
  if (!route.ok() || route->order.empty()) return false;
  const std::string& address = route->order.front().address;
  if (LiesAt(run, address)) return false;
  const absl::StatusOr<OpenShard> home =
      OpenAt(core, address, call.spec->spec, TryDeadline(absl::Now(), context.deadline, 3));
  if (!home.ok() || home->link->draining()) return false;
  core.counters.pulls += 1;
  const auto pulled = home->link->Pull({.spec = home->spec.handle,
                                        .keys = std::span(call.keys).first(run.blocks()),
                                        .session_id = call.session,
                                        .token_ids = {},
                                        .from = {}},
                                       TryDeadline(absl::Now(), context.deadline, 2));
  return pulled.ok() && pulled->run_blocks >= run.blocks();
}

}  // namespace

void PrefetchRun(const CorePtr& core, const AcquireCall& call, const CallContext& context) {
  AcquireResult result = AcquireRun(core, call, context);
  if (result.run->blocks() == 0) return;
  if (BroughtHome(*core, call, *result.run, context)) {
    AcquireResult at_home = AcquireRun(core, call, context);
    if (at_home.run->blocks() >= result.run->blocks()) result = std::move(at_home);
  }
  core->prefetched.Put(std::move(result.run));
}

}  // namespace reprise::client
