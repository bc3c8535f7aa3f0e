// What a router knows as what is scraped, and as the page for people. service/telemetry/README.md
// describes every metric; a test compares it with what a running router serves.
//
// Invariants: all families and all bounded labels are there, at 0, from the start; a shard's own
// series are there while it is a member, at most limits::kShardsMax of each.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "service/router/router_engine.h"
#include "service/telemetry/metric_family.h"
#include "service/telemetry/status_pages.h"

namespace reprise::router {

struct RouterSnapshot {
  RouterDescription engine;
  cluster::MembershipState membership;
  uint64_t topology_watchers = 0;
  std::string version;
  std::string address;  // host:port that gRPC is served on
  absl::Duration uptime;
  bool draining = false;
};

std::vector<telemetry::Family> ToFamilies(const RouterSnapshot& router);
telemetry::StatusPage ToPage(const RouterSnapshot& router);

}  // namespace reprise::router
