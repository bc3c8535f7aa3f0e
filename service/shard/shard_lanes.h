// The lanes that a shard process offers: opens what this machine has, says why it has not more, and
// puts what a server needs for them into its options. The stream lane is the service's own and is
// always there.
//
// Invariants: a lane is offered only when it was opened; an attachment's end ends what its lanes
// hold. Thread safety: immutable after Open.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "cluster/lanes/view/view_server.h"
#include "cluster/link/nccl_context.h"
#include "cluster/peer/nccl_shard_end.h"
#include "service/shard/admission.h"
#include "service/shard/counted_host.h"
#include "service/shard/engine_exporter.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_service_server.h"

namespace reprise::shard {

enum class NcclUse {
  kAuto,  // when there is a GPU tier and the library
  kOn,    // or the shard does not start
  kOff
};

struct ShardLanesOptions {
  bool view = true;
  NcclUse nccl = NcclUse::kAuto;
  std::string nccl_library;  // path; empty: what the loader finds
  std::optional<int> gpu;    // the hbm tier's device; nullopt: this shard has no hbm tier
  bool tcp = true;
  std::string listen = "127.0.0.1:0";  // as gRPC; of it the tcp lane takes the host,
  uint16_t tcp_port = 0;               //   and this port; 0: a free one
  bool tcp_encrypted = false;
};

class ShardLanes {
 public:
  // FAILED_PRECONDITION when NCCL was asked for and is not to be had, UNAVAILABLE when the tcp
  // lane's port was named and is not. REQUIRES: `engine` outlives this.
  static absl::StatusOr<std::unique_ptr<ShardLanes>> Open(const ShardLanesOptions& options,
                                                          ShardEngine& engine);

  // REQUIRES: this outlives the server that is started with them.
  void AddTo(ShardServerOptions& options);

  // The caller's end of NCCL, for links to other shards; nullptr: there is none.
  const std::shared_ptr<const cluster::NcclContext>& nccl() const { return nccl_; }
  const std::vector<AbsentLane>& absent() const { return absent_; }
  LanesUse use() const;
  // 0: no tcp lane.
  uint16_t tcp_port() const { return tcp_ != nullptr ? tcp_->port() : 0; }
  // "view, nccl, stream (no nccl: why)": one line for the log.
  std::string Summary() const;

 private:
  explicit ShardLanes(ShardEngine& engine)
      : exporter_(engine), view_host_(engine), tcp_host_(engine), engine_(engine) {}
  void OpenView(bool wanted);
  absl::Status OpenTcp(const ShardLanesOptions& options);
  absl::Status OpenNccl(const ShardLanesOptions& options);
  std::vector<LaneKind> Offered() const;

  EngineExporter exporter_;
  CountedHost view_host_;
  CountedHost tcp_host_;
  const std::shared_ptr<Admission> admission_ = Admission::Create();
  ShardEngine& engine_;
  std::vector<AbsentLane> absent_;
  std::shared_ptr<const cluster::NcclContext> nccl_;
  std::unique_ptr<cluster::NcclShardEnd> nccl_end_;
  std::unique_ptr<lanes::ViewServer> view_;
  std::unique_ptr<lanes::TcpServer> tcp_;
};

}  // namespace reprise::shard
