// What the client's verbs share. Internal to client/cpp.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/device_workspace.h"
#include "client/cpp/executor.h"
#include "client/cpp/operation.h"
#include "client/cpp/prefetched_runs.h"
#include "client/cpp/prefill_rates.h"
#include "client/cpp/routes.h"
#include "client/cpp/shard_set.h"
#include "client/cpp/staging.h"
#include "client/cpp/store_order.h"
#include "proto/types/refusal.h"

namespace reprise::client {

struct ClientCore {
  ClientCore(ClientOptions client_options, ClientSeams seams);

  ClientOptions options;
  Counters counters;
  Staging staging;
  DeviceWorkspaces device_workspaces;
  absl::Mutex store_start_mu;
  StoreOrder store_order;
  std::unique_ptr<ShardQueries> queries;
  ShardSet shards;
  Executor executor;
  Routes routes;
  PrefetchedRuns prefetched;
  PrefillRates prefill;
};

using CorePtr = std::shared_ptr<ClientCore>;

// A shard that is attached and knows the spec.
struct OpenShard {
  std::string address;
  std::shared_ptr<cluster::ShardLink> link;
  cluster::OpenedSpec spec;
};

// Attaches if need be and opens the spec; once more when the link turned out to be broken.
absl::StatusOr<OpenShard> OpenAt(ClientCore& core, const std::string& address,
                                 const CacheSpec& spec, absl::Time deadline);

// What is asked of routers about a chain. REQUIRES: `keys` outlives the answer.
RouteCall RouteCallOf(const ClientCore& core, const ClientSpec& spec, const std::string& session,
                      std::span<const BlockKey> keys);

// Tells the shard set what a call on a link came to.
void ReportCall(ClientCore& core, const OpenShard& shard, const absl::Status& status,
                absl::Time started, absl::Time deadline);

// True when the link is at fault and another attempt on a new one makes sense.
bool LinkBroke(const OpenShard& shard, const absl::Status& status);

// Ends leases in the background.
Run::Releaser MakeReleaser(const CorePtr& core);

// ---- The verbs
AcquireResult AcquireRun(const CorePtr& core, const AcquireCall& call, const CallContext& context);
// The blocks from call.first_block on, from any shard but those in `except`.
absl::StatusOr<Segment> AcquireElsewhere(const CorePtr& core, const AcquireCall& call,
                                         const std::vector<std::string>& except,
                                         absl::Time deadline);
// Leases the run for the acquire that comes, at the session's home when that can bring it there.
void PrefetchRun(const CorePtr& core, const AcquireCall& call, const CallContext& context);
FetchResult FetchRun(const CorePtr& core, Run& run, const FetchCall& call,
                     const CallContext& context);
StoreResult StoreChain(const CorePtr& core, const StoreCall& call, const CallContext& context);
HintAnswer HintShards(const CorePtr& core, const HintCall& call, const CallContext& context);

// ---- Misuse: INVALID_ARGUMENT, or OK
absl::Status CheckAcquire(const AcquireCall& call);
absl::Status CheckFetch(const Run& run, const FetchCall& call);
absl::Status CheckStore(const StoreCall& call);
absl::Status CheckHintCall(const HintCall& call);

}  // namespace reprise::client
