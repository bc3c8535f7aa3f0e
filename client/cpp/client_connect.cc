// The client over the network: real links, real routers.
#include <algorithm>
#include <utility>

#include "client/cpp/client.h"
#include "cluster/link/nccl_context.h"
#include "cluster/link/shard_link.h"
#include "proto/types/status_macros.h"
#include "proto/wire/credentials.h"

namespace reprise::client {
namespace {

// The process's NCCL, when it is asked for and there; nullptr: blocks move by the other lanes.
std::shared_ptr<const cluster::NcclContext> OpenNccl(const ClientOptions& options) {
  const bool wanted =
      options.gpu.has_value() &&
      std::find(options.lanes.begin(), options.lanes.end(), LaneKind::kNccl) != options.lanes.end();
  if (!wanted) return nullptr;
  absl::StatusOr<std::shared_ptr<const cluster::NcclContext>> nccl =
      cluster::NcclContext::Open({.gpu = *options.gpu, .library = options.nccl_library});
  return nccl.ok() ? *std::move(nccl) : nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  REPRISE_ASSIGN_OR_RETURN(const std::shared_ptr<const wire::Credentials> credentials,
                           wire::Credentials::Load(options.tls));
  ClientSeams seams;
  seams.connect = [nccl = OpenNccl(options), credentials](cluster::ShardLinkOptions link,
                                                          absl::Time deadline) {
    link.nccl = nccl;
    link.credentials = credentials;
    return cluster::ShardLink::Connect(std::move(link), deadline);
  };
  if (!options.routers.empty()) {
    seams.router = MakeGrpcRouterClient(options.routers, credentials);
  }
  seams.queries = MakeGrpcShardQueries(credentials);
  return CreateWith(std::move(options), std::move(seams));
}

}  // namespace reprise::client
