// One shard's gRPC server: the service with health, reflection and channelz, the thread that ticks,
// and the orderly stop.
//
// Invariants: after Stop() no handler runs and no thread of this is left; the engine is used by
// nothing afterwards.
//
// Thread safety: Stop() once, from one thread.
#pragma once

#include <grpcpp/server.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "cluster/peer/nccl_shard_end.h"
#include "proto/wire/call_times.h"
#include "proto/wire/caller.h"
#include "proto/wire/credentials.h"
#include "service/shard/admin_service.h"
#include "service/shard/handlers/shard_core.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_service.h"
#include "service/shard/tcp_verbs.h"
#include "service/telemetry/rpc_durations.h"
#include "service/telemetry/status_port.h"
#include "service/telemetry/tick_watch.h"

namespace reprise::shard {

struct ShardServerOptions {
  ShardId id;
  std::string listen = "127.0.0.1:0";  // host:port; port 0: a free one
  bool insecure = false;               // listen on another address than loopback, in plaintext
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
  wire::AccessPolicy access;
  uint32_t replication = 1;                           // told to clients by OpenSpec
  std::vector<LaneKind> lanes = {LaneKind::kStream};  // best first
  std::vector<AbsentLane> absent_lanes;               // shown by Describe
  std::string view_socket;                            // empty: no view lane
  lanes::TcpServer* tcp = nullptr;  // nullptr: no tcp lane. REQUIRES: outlives the server
  std::shared_ptr<Admission> admission = Admission::Create();  // shared with lanes of their own
  std::function<LanesUse()> lanes_use;  // of the lanes beside the stream; may be empty
  bool time_calls = false;              // for the status port
  // Told of every attachment that ended, for lanes of their own; may be empty. Must not block.
  std::function<void(AttachmentId)> on_detached;
  // Makes the gRPC services of those lanes, which are served beside ShardService; may be empty.
  // What it is given says OK when the caller behind a context owns an attachment.
  std::function<std::vector<std::unique_ptr<grpc::Service>>(cluster::AuthorizeAttachment)> services;
  ShardPeers* peers = nullptr;  // nullptr: no other shards. REQUIRES: outlives the server
};

class ShardServer {
 public:
  // INVALID_ARGUMENT for an address that is none, FAILED_PRECONDITION for one that is not loopback
  // without `insecure`, UNAVAILABLE when it cannot be bound. REQUIRES: `engine` outlives the
  // server.
  static absl::StatusOr<std::unique_ptr<ShardServer>> Start(ShardServerOptions options,
                                                            ShardEngine& engine);
  ~ShardServer();
  ShardServer(const ShardServer&) = delete;
  ShardServer& operator=(const ShardServer&) = delete;

  const std::string& address() const { return address_; }  // host:port as bound

  // Tells every client to write elsewhere; health turns NOT_SERVING. Reads go on. Once is enough.
  void StartDraining();
  // Waits up to `grace` for what is in flight, then ends everything.
  void Stop(absl::Duration grace);

  // What the status port tells of this shard. REQUIRES: the server outlives its use.
  telemetry::StatusSource status() const;

 private:
  ShardServer(ShardServerOptions options, ShardEngine& engine);
  absl::Status Listen(const ShardServerOptions& options);
  wire::CallEnded TimeCalls();
  void StopVerbs();
  void TickLoop();

  ShardSnapshot Snapshot() const;

  const std::shared_ptr<const wire::Credentials> credentials_;  // nullptr: plaintext
  ShardCore core_;
  std::unique_ptr<telemetry::RpcDurations> calls_;  // nullptr: they are not timed
  ShardService service_;
  AdminService admin_;
  std::unique_ptr<TcpVerbs> tcp_verbs_;  // nullptr: no tcp lane
  std::vector<std::unique_ptr<grpc::Service>> more_services_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  telemetry::TickWatch ticks_;
  std::thread ticker_;
};

}  // namespace reprise::shard
