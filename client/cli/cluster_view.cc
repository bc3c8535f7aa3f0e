#include "client/cli/cluster_view.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/deadline.h"
#include "proto/wire/status.h"
#include "reprise/v1/admin.grpc.pb.h"
#include "reprise/v1/router.grpc.pb.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::cli {
namespace {

// gRPC's own words for a dead server do not name it.
absl::Status Naming(absl::string_view what, const std::string& address,
                    const absl::Status& status) {
  if (status.ok()) return status;
  const absl::Status named(status.code(), absl::StrCat(what, " ", address, ": ", status.message()));
  return named;
}

}  // namespace

absl::StatusOr<v1::RouterServiceDescribeResponse> DescribeRouter(const Server& server,
                                                                 absl::Time deadline) {
  auto stub = v1::RouterService::NewStub(wire::MakeChannel(server.address, server.credentials));
  grpc::ClientContext context;
  context.set_deadline(wire::ToGprDeadline(deadline));
  v1::RouterServiceDescribeResponse response;
  REPRISE_RETURN_IF_ERROR(Naming("router", server.address,
                                 wire::FromGrpcStatus(stub->Describe(&context, {}, &response))));
  return response;
}

absl::StatusOr<v1::ShardServiceDescribeResponse> DescribeShard(const Server& server,
                                                               absl::Time deadline) {
  auto stub = v1::ShardService::NewStub(wire::MakeChannel(server.address, server.credentials));
  grpc::ClientContext context;
  context.set_deadline(wire::ToGprDeadline(deadline));
  v1::ShardServiceDescribeResponse response;
  REPRISE_RETURN_IF_ERROR(Naming("shard", server.address,
                                 wire::FromGrpcStatus(stub->Describe(&context, {}, &response))));
  return response;
}

absl::StatusOr<v1::DrainResponse> DrainShard(const Server& server, const v1::DrainRequest& request,
                                             absl::Time deadline) {
  auto stub = v1::AdminService::NewStub(wire::MakeChannel(server.address, server.credentials));
  grpc::ClientContext context;
  context.set_deadline(wire::ToGprDeadline(deadline));
  v1::DrainResponse response;
  const absl::Status status = wire::FromGrpcStatus(stub->Drain(&context, request, &response));
  if (!status.ok() && !RefusalReason(status).empty()) return status;
  REPRISE_RETURN_IF_ERROR(Naming("shard", server.address, status));
  return response;
}

absl::StatusOr<ClusterReport> DescribeCluster(const Where& where) {
  REPRISE_RETURN_IF_ERROR(CheckWhere(where));
  ClusterReport report;
  REPRISE_ASSIGN_OR_RETURN(report.credentials, wire::Credentials::Load(where.tls));
  if (where.shards.empty()) {
    absl::Status last;
    for (const std::string& router : where.routers) {
      auto description = DescribeRouter({router, report.credentials},
                                        absl::Now() + absl::Seconds(where.timeout_s));
      last = description.status();
      if (!description.ok()) continue;
      report.router = router;
      report.router_description = *std::move(description);
      break;
    }
    REPRISE_RETURN_IF_ERROR(last);
    for (const auto& shard : report.router_description.shards()) {
      ShardReport one;
      one.address = shard.shard().address();
      one.shard_id = shard.shard().shard_id();
      one.state = StateName(shard.state());
      report.shards.push_back(std::move(one));
    }
  } else {
    for (const std::string& address : where.shards) {
      ShardReport one;
      one.address = address;
      report.shards.push_back(std::move(one));
    }
  }
  for (ShardReport& shard : report.shards) {
    // A shard that the router calls dead gets a short try: it may have come back.
    const absl::Duration patience =
        absl::Seconds(shard.state == "dead" ? std::min(where.timeout_s, 0.5) : where.timeout_s);
    auto description = DescribeShard({shard.address, report.credentials}, absl::Now() + patience);
    shard.status = description.status();
    if (!description.ok()) continue;
    shard.description = *std::move(description);
    shard.shard_id = shard.description.shard_id();
  }
  std::sort(report.shards.begin(), report.shards.end(),
            [](const ShardReport& a, const ShardReport& b) { return a.shard_id < b.shard_id; });
  return report;
}

absl::Status ReadSnapshot(
    const Server& server, absl::Time deadline,
    const std::function<bool(const v1::WatchBlocksResponse::Stored&)>& on_stored) {
  auto stub = v1::ShardService::NewStub(wire::MakeChannel(server.address, server.credentials));
  grpc::ClientContext context;
  context.set_deadline(wire::ToGprDeadline(deadline));
  auto reader = stub->WatchBlocks(&context, {});
  v1::WatchBlocksResponse event;
  bool complete = false;
  while (!complete && reader->Read(&event)) {
    complete = event.has_snapshot_end() || (event.has_stored() && !on_stored(event.stored()));
  }
  // A feed that ended by itself has something to say.
  if (complete) context.TryCancel();
  const absl::Status status = wire::FromGrpcStatus(reader->Finish());
  return complete ? absl::OkStatus() : Naming("shard", server.address, status);
}

std::string HexOf(const std::string& bytes) {
  return absl::BytesToHexString(bytes);
}

const char* StateName(v1::ShardState state) {
  switch (state) {
    case v1::SHARD_STATE_ALIVE:
      return "alive";
    case v1::SHARD_STATE_DRAINING:
      return "draining";
    case v1::SHARD_STATE_DEAD:
      return "dead";
    case v1::SHARD_STATE_SYNCING:
      return "syncing";
    default:
      return "unknown";
  }
}

const char* TierNameOf(v1::Tier tier) {
  switch (tier) {
    case v1::TIER_HBM:
      return "hbm";
    case v1::TIER_DRAM:
      return "dram";
    case v1::TIER_NVME:
      return "nvme";
    default:
      return "unknown";
  }
}

}  // namespace reprise::cli
