// A router at work: the engine, a watcher per member, the server, and the thread that ticks.
//
// Invariants: after Stop() no thread of this is left.
//
// Thread safety: Stop() once, from one thread.
#pragma once

#include <grpcpp/server.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "proto/wire/caller.h"
#include "proto/wire/credentials.h"
#include "service/router/router_engine.h"
#include "service/router/router_metrics.h"
#include "service/router/router_service.h"
#include "service/router/shard_watcher.h"
#include "service/telemetry/rpc_durations.h"
#include "service/telemetry/status_port.h"
#include "service/telemetry/tick_watch.h"

namespace reprise::router {

struct RouterProcessOptions {
  std::string listen = "127.0.0.1:0";  // host:port; port 0: a free one
  bool insecure = false;               // listen on another address than loopback, in plaintext
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
  wire::AccessPolicy access;
  cluster::Membership* membership = nullptr;   // REQUIRES: outlives the process
  bool time_calls = false;                     // for the status port
  std::function<void(absl::string_view)> log;  // empty: nobody is told
};

class RouterProcess {
 public:
  // As wire::CheckListenAddress and wire::Listen say.
  static absl::StatusOr<std::unique_ptr<RouterProcess>> Start(RouterProcessOptions options);
  ~RouterProcess();
  RouterProcess(const RouterProcess&) = delete;
  RouterProcess& operator=(const RouterProcess&) = delete;

  const std::string& address() const { return address_; }  // host:port as bound

  // What the status port tells of this router. REQUIRES: the process outlives its use.
  telemetry::StatusSource status() const;

  // Health turns NOT_SERVING, streams end, calls in flight have `grace`.
  void Stop(absl::Duration grace);

 private:
  explicit RouterProcess(RouterProcessOptions options);
  void OnMembers(const std::vector<cluster::Member>& members);
  void TickLoop();
  void FitWatchers();
  RouterSnapshot Snapshot() const;
  std::string WhyOfNoUse() const;  // empty: it can answer

  const RouterProcessOptions options_;
  const absl::Time started_;
  std::atomic<bool> draining_{false};
  telemetry::TickWatch ticks_;
  std::unique_ptr<telemetry::RpcDurations> calls_;  // nullptr: they are not timed
  RouterEngine engine_;
  RouterService service_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
  std::map<ShardId, std::unique_ptr<ShardWatcher>> watchers_;  // the ticker's alone

  absl::Mutex mu_;
  std::vector<cluster::Member> members_ ABSL_GUARDED_BY(mu_);
  bool members_new_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread ticker_;
  std::unique_ptr<cluster::MembershipWatch> watch_;
};

}  // namespace reprise::router
