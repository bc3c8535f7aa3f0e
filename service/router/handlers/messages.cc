#include "service/router/handlers/messages.h"

#include <algorithm>
#include <limits>

#include "proto/wire/enums.h"

namespace reprise::router {

using cluster::ShardState;

v1::ShardState ToMessage(ShardState state) {
  switch (state) {
    case ShardState::kAlive:
      return v1::SHARD_STATE_ALIVE;
    case ShardState::kDraining:
      return v1::SHARD_STATE_DRAINING;
    case ShardState::kDead:
      return v1::SHARD_STATE_DEAD;
    case ShardState::kSyncing:
      return v1::SHARD_STATE_SYNCING;
  }
  return v1::SHARD_STATE_UNSPECIFIED;
}

void ToMessage(const ShardPlace& place, v1::ShardAddress& address) {
  address.set_shard_id(place.id.name);
  address.set_address(place.address);
}

uint32_t ToMilliseconds(absl::Duration time) {
  constexpr int64_t kMost = std::numeric_limits<uint32_t>::max();
  return static_cast<uint32_t>(std::clamp<int64_t>(absl::ToInt64Milliseconds(time), 0, kMost));
}

void ToMessage(std::span<const LocatedRun> runs,
               google::protobuf::RepeatedPtrField<v1::LocateResponse::Run>& field) {
  for (const LocatedRun& located : runs) {
    v1::LocateResponse::Run* run = field.Add();
    ToMessage(located.shard, *run->mutable_shard());
    run->set_blocks(located.blocks);
    run->set_tier(wire::ToMessage(located.tier));
    run->set_age_ms(ToMilliseconds(located.age));
  }
}

v1::WatchTopologyResponse ToMessage(const cluster::Topology& topology) {
  v1::WatchTopologyResponse response;
  response.set_epoch(topology.epoch.value);
  for (const cluster::TopologyShard& from : topology.shards) {
    v1::WatchTopologyResponse::Shard* shard = response.add_shards();
    shard->mutable_shard()->set_shard_id(from.id.name);
    shard->mutable_shard()->set_address(from.address);
    shard->set_state(ToMessage(from.state));
    shard->set_used_bytes(from.used_bytes);
    shard->set_capacity_bytes(from.capacity_bytes);
  }
  return response;
}

}  // namespace reprise::router
