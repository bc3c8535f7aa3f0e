#include "service/shard/shard_lanes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/address.h"

namespace reprise::shard {
namespace {

absl::StatusOr<std::shared_ptr<const cluster::NcclContext>> OpenContext(
    const ShardLanesOptions& options) {
  if (options.nccl == NcclUse::kOff) {
    return Refusal(absl::StatusCode::kUnavailable, "NCCL_OFF", "switched off by --nccl off");
  }
  if (!options.gpu.has_value()) {
    return Refusal(absl::StatusCode::kUnavailable, "NCCL_NO_HBM",
                   "this shard keeps no blocks in GPU memory: give it some with --hbm");
  }
  return cluster::NcclContext::Open({.gpu = *options.gpu, .library = options.nccl_library});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardLanes>> ShardLanes::Open(const ShardLanesOptions& options,
                                                             ShardEngine& engine) {
  std::unique_ptr<ShardLanes> lanes(new ShardLanes(engine));
  lanes->OpenView(options.view);
  REPRISE_RETURN_IF_ERROR(lanes->OpenTcp(options));
  REPRISE_RETURN_IF_ERROR(lanes->OpenNccl(options));
  return lanes;
}

void ShardLanes::OpenView(bool wanted) {
  if (!wanted) {
    absent_.push_back({LaneKind::kView, "switched off by --no-view"});
    return;
  }
  absl::StatusOr<std::unique_ptr<lanes::ViewServer>> created =
      lanes::ViewServer::Create({.host = &view_host_, .exporter = &exporter_});
  if (created.ok()) {
    view_ = *std::move(created);
  } else {
    absent_.push_back({LaneKind::kView, std::string(created.status().message())});
  }
}

absl::Status ShardLanes::OpenTcp(const ShardLanesOptions& options) {
  if (!options.tcp) {
    absent_.push_back({LaneKind::kTcp, "switched off by --no-tcp"});
    return absl::OkStatus();
  }
  const auto admit = [this](WorkKind kind, absl::Duration patience) -> lanes::TcpGuards::Admit {
    return [admission = admission_, kind, patience] { return admission->Admit(kind, patience); };
  };
  absl::StatusOr<std::unique_ptr<lanes::TcpServer>> created = lanes::TcpServer::Create(
      {.host = &tcp_host_,
       .listen_host = wire::HostOf(options.listen),
       .port = options.tcp_port,
       .encrypted = options.tcp_encrypted,
       .guards = {.read = admit(WorkKind::kTcpRead, absl::ZeroDuration()),
                  .file = admit(WorkKind::kDiskRead, limits::kTcpDiskWait),
                  .write = admit(WorkKind::kTcpWrite, absl::ZeroDuration())}});
  if (created.ok()) {
    tcp_ = *std::move(created);
  } else if (options.tcp_port != 0) {
    return created.status();
  } else {
    absent_.push_back({LaneKind::kTcp, std::string(created.status().message())});
  }
  return absl::OkStatus();
}

absl::Status ShardLanes::OpenNccl(const ShardLanesOptions& options) {
  absl::StatusOr<std::shared_ptr<const cluster::NcclContext>> nccl = OpenContext(options);
  if (nccl.ok()) {
    nccl_ = *std::move(nccl);
    nccl_end_ = cluster::NcclShardEnd::Create(*nccl_, &engine_);
    return absl::OkStatus();
  }
  if (options.nccl == NcclUse::kOn) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "NCCL_ABSENT",
                   absl::StrCat("--nccl on: ", nccl.status().message()));
  }
  absent_.push_back({LaneKind::kNccl, std::string(nccl.status().message())});
  return absl::OkStatus();
}

std::vector<LaneKind> ShardLanes::Offered() const {
  std::vector<LaneKind> offered;
  if (view_ != nullptr) offered.push_back(LaneKind::kView);
  if (nccl_end_ != nullptr) offered.push_back(LaneKind::kNccl);
  if (tcp_ != nullptr) offered.push_back(LaneKind::kTcp);
  offered.push_back(LaneKind::kStream);
  return offered;
}

void ShardLanes::AddTo(ShardServerOptions& options) {
  options.lanes = Offered();
  options.absent_lanes = absent_;
  options.admission = admission_;
  if (view_ != nullptr) options.view_socket = view_->address();
  options.tcp = tcp_.get();
  if (nccl_end_ != nullptr) {
    options.services = [end = nccl_end_.get()](cluster::AuthorizeAttachment authorize) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(end->MakeService(std::move(authorize)));
      return services;
    };
  }
  options.on_detached = [this, others = std::move(options.on_detached)](AttachmentId attachment) {
    if (view_ != nullptr) view_->EndAttachment(attachment);
    if (tcp_ != nullptr) tcp_->EndAttachment(attachment);
    if (nccl_end_ != nullptr) nccl_end_->EndAttachment(attachment);
    if (others) others(attachment);
  };
  options.lanes_use = [this] { return use(); };
}

LanesUse ShardLanes::use() const {
  LanesUse use{.view = view_host_.use(), .tcp = tcp_host_.use()};
  if (tcp_ != nullptr) {
    const lanes::TcpServer::Use tcp = tcp_->use();
    use.tcp_connections = tcp.connections;
    use.tcp_verbs = tcp.verbs;
  }
  if (nccl_end_ != nullptr) {
    const cluster::NcclShardEnd::Use nccl = nccl_end_->use();
    use.nccl = {.blocks_read = nccl.blocks_read,
                .bytes_read = nccl.bytes_read,
                .blocks_written = nccl.blocks_written,
                .bytes_written = nccl.bytes_written};
    use.nccl_links_served = nccl.links;
    use.nccl_link_failures = nccl.link_failures;
  }
  if (nccl_ != nullptr) {
    use.nccl_links_made = nccl_->links();
    use.nccl_link_failures += nccl_->link_failures();
  }
  return use;
}

std::string ShardLanes::Summary() const {
  const std::string offered = absl::StrJoin(Offered(), ", ", [](std::string* out, LaneKind lane) {
    absl::StrAppend(out, LaneKindName(lane));
  });
  std::string line = absl::StrCat("lanes: ", offered);
  if (nccl_ != nullptr) absl::StrAppend(&line, " (", nccl_->Description(), ")");
  if (tcp_ != nullptr) absl::StrAppend(&line, " (tcp port ", tcp_->port(), ")");
  for (const AbsentLane& lane : absent_) {
    absl::StrAppend(&line, "; no ", LaneKindName(lane.lane), ": ", lane.why);
  }
  return line;
}

}  // namespace reprise::shard
