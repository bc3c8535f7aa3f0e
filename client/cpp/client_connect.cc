// The client over the network: real links, real routers.
#include <utility>

#include "client/cpp/client.h"
#include "cluster/link/shard_link.h"

namespace reprise::client {

absl::StatusOr<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  ClientSeams seams;
  seams.connect = &cluster::ShardLink::Connect;
  if (!options.routers.empty()) seams.router = MakeGrpcRouterClient(options.routers);
  seams.queries = MakeGrpcShardQueries();
  return CreateWith(std::move(options), std::move(seams));
}

}  // namespace reprise::client
