#include "client/cli/tcp_check.h"

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/clock.h"
#include "cluster/lanes/lane.h"
#include "cluster/link/shard_link.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cli {
namespace {

// Takes no block: none is asked for that there is.
class NoSink final : public lanes::BlockSink {
 public:
  std::span<uint8_t> Buffer(uint32_t) override { return buffer_; }
  absl::Status Complete(uint32_t) override { return absl::OkStatus(); }
  absl::Status Deliver(uint32_t, std::span<const uint8_t>) override { return absl::OkStatus(); }

 private:
  std::vector<uint8_t> buffer_ = std::vector<uint8_t>(limits::kBlockBytesMin);
};

// Asks over the port for a lease that nobody has: the answer is that there is none.
absl::Status Reach(const ShardReport& shard, const ClusterReport& cluster) {
  const absl::Time deadline = absl::Now() + limits::kConnectDeadline;
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<cluster::ShardLink> link,
                           cluster::ShardLink::Connect({.address = shard.address,
                                                        .client_name = "reprise-doctor",
                                                        .lanes = {LaneKind::kTcp},
                                                        .credentials = cluster.credentials},
                                                       deadline));
  if (link->lane().kind() != LaneKind::kTcp) return absl::UnavailableError("offers none");
  NoSink sink;
  const absl::Status answer =
      link->lane().Read({LeaseId(1), 0, 1, limits::kBlockBytesMin}, sink, deadline);
  return absl::IsNotFound(answer) ? absl::OkStatus() : answer;
}

}  // namespace

absl::StatusOr<std::vector<TcpReach>> ReachTcp(const Where& where) {
  REPRISE_ASSIGN_OR_RETURN(const ClusterReport cluster, DescribeCluster(where));
  std::vector<TcpReach> reached;
  for (const ShardReport& shard : cluster.shards) {
    if (!shard.status.ok()) continue;
    const auto& offered = shard.description.lanes();
    const bool offers =
        std::find(offered.begin(), offered.end(), v1::LANE_KIND_TCP) != offered.end();
    reached.push_back(
        {shard.shard_id, offers ? Reach(shard, cluster) : absl::UnavailableError("offers none")});
  }
  return reached;
}

}  // namespace reprise::cli
