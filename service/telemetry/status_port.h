// The status port of one server process: its pages behind an address.
//
// Thread safety: the source's functions are called on the port's own thread, one at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "service/telemetry/http_server.h"
#include "service/telemetry/metric_family.h"
#include "service/telemetry/rpc_durations.h"
#include "service/telemetry/status_pages.h"
#include "service/telemetry/tick_watch.h"

namespace reprise::telemetry {

// What both servers tell in the same way, around what is their own.
struct ServerStatus {
  std::string component;  // "shard"
  std::string version;
  std::string address;                              // host:port that gRPC is served on
  const RpcDurations* calls = nullptr;              // nullptr: they are not timed
  const TickWatch* ticks = nullptr;                 // REQUIRES: not nullptr
  std::function<absl::Time()> certificate_expires;  // empty: plaintext
  std::function<bool()> draining;                   // wants no more calls
  std::function<std::string()> unready;             // why it is of no use yet; empty: it is
  std::function<std::vector<Family>()> metrics;     // its own
  std::function<StatusPage()> page;
};
StatusSource SourceOf(ServerStatus server);

struct StatusPortOptions {
  std::string listen;           // host:port; port 0: a free one; empty: no status port
  bool public_address = false;  // as HttpServerOptions
};

// What OpenStatusPort would refuse now: for the beginning of main, before a shard takes its memory.
absl::Status CheckStatusPort(const StatusPortOptions& options);

// nullptr when none is asked for; else as HttpServer::Start. REQUIRES: what `source` uses outlives
// the port.
absl::StatusOr<std::unique_ptr<HttpServer>> OpenStatusPort(const StatusPortOptions& options,
                                                           StatusSource source);

}  // namespace reprise::telemetry
