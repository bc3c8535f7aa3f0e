#include "service/router/handlers/describe_handler.h"

#include <utility>
#include <vector>

#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "service/router/handlers/messages.h"

namespace reprise::router {
namespace {

std::vector<std::pair<const char*, uint64_t>> Limits() {
  return {
      {"dead_shard_memory_ms", ToMilliseconds(limits::kDeadShardMemory)},
      {"heartbeat_interval_ms", ToMilliseconds(limits::kHeartbeatInterval)},
      {"heartbeats_missed_max", limits::kHeartbeatsMissedMax},
      {"index_blocks_max", limits::kRouterIndexBlocksMax},
      {"locate_runs_max", limits::kLocateRunsMax},
      {"members_dns_interval_ms", ToMilliseconds(limits::kMembersDnsInterval)},
      {"message_bytes_max", limits::kMessageBytesMax},
      {"name_bytes_max", limits::kNameBytesMax},
      {"prompt_blocks_max", limits::kPromptBlocksMax},
      {"registration_ttl_ms", ToMilliseconds(limits::kRegistrationTtl)},
      {"session_ttl_ms", ToMilliseconds(limits::kSessionTtl)},
      {"sessions_max", limits::kSessionsMax},
      {"shards_max", limits::kShardsMax},
      {"status_connections_max", limits::kStatusConnectionsMax},
      {"status_request_bytes_max", limits::kStatusRequestBytesMax},
      {"status_request_timeout_ms", ToMilliseconds(limits::kStatusRequestTimeout)},
      {"status_response_timeout_ms", ToMilliseconds(limits::kStatusResponseTimeout)},
      {"topology_watchers_max", limits::kTopologyWatchersMax},
      {"vanished_member_kept_ms", ToMilliseconds(limits::kVanishedMemberKept)},
  };
}

}  // namespace

absl::Status DescribeHandler::Handle(const Tenant&, const v1::RouterServiceDescribeRequest&,
                                     v1::RouterServiceDescribeResponse& response) const {
  const absl::Time now = clock_.Now();
  const RouterDescription description = engine_.Describe(now);
  response.set_version(REPRISE_VERSION);
  response.set_uptime_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(now - started_)));
  response.set_epoch(description.epoch.value);
  response.set_sessions(description.sessions);
  for (const ShardKnowledge& knowledge : description.shards) {
    v1::RouterServiceDescribeResponse::ShardIndex* shard = response.add_shards();
    ToMessage(knowledge.shard, *shard->mutable_shard());
    shard->set_state(ToMessage(knowledge.state));
    shard->set_blocks(knowledge.blocks);
    shard->set_last_sequence(knowledge.last_sequence);
    shard->set_resyncs(knowledge.resyncs);
    shard->set_age_ms(ToMilliseconds(knowledge.age));
  }
  const cluster::MembershipState members = membership_.State();
  response.mutable_membership()->set_source(members.source);
  response.mutable_membership()->set_trouble(members.trouble);
  response.mutable_membership()->set_trouble_ms(static_cast<uint64_t>(
      absl::ToInt64Milliseconds(members.TroubledFor(MonotonicClock().Now()))));
  for (const auto& [name, value] : Limits()) {
    v1::RouterServiceDescribeResponse::Limit* limit = response.add_limits();
    limit->set_name(name);
    limit->set_value(value);
  }
  return absl::OkStatus();
}

}  // namespace reprise::router
