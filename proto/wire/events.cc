#include "proto/wire/events.h"

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/enums.h"
#include "proto/wire/spec.h"

namespace reprise::wire {
namespace {

absl::StatusOr<BlockEvent> FromStored(const v1::WatchBlocksResponse::Stored& stored) {
  BlockEvent event{.kind = BlockEvent::Kind::kStored,
                   .tenant = Tenant{stored.tenant()},
                   .session_id = stored.session_id()};
  REPRISE_ASSIGN_OR_RETURN(event.fingerprint,
                           FingerprintFromBytes(stored.fingerprint(), "stored.fingerprint"));
  REPRISE_ASSIGN_OR_RETURN(event.keys, UnpackKeys(stored.keys(), "stored.keys"));
  REPRISE_ASSIGN_OR_RETURN(event.tier, FromMessage(stored.tier(), "stored.tier"));
  return event;
}

absl::StatusOr<BlockEvent> FromRemoved(const v1::WatchBlocksResponse::Removed& removed) {
  BlockEvent event{.kind = BlockEvent::Kind::kRemoved, .tenant = Tenant{removed.tenant()}};
  REPRISE_ASSIGN_OR_RETURN(event.fingerprint,
                           FingerprintFromBytes(removed.fingerprint(), "removed.fingerprint"));
  REPRISE_ASSIGN_OR_RETURN(event.keys, UnpackKeys(removed.keys(), "removed.keys"));
  return event;
}

}  // namespace

v1::WatchBlocksResponse ToMessage(const BlockEvent& event, uint64_t sequence) {
  v1::WatchBlocksResponse message;
  message.set_sequence(sequence);
  switch (event.kind) {
    case BlockEvent::Kind::kStored: {
      v1::WatchBlocksResponse::Stored* stored = message.mutable_stored();
      stored->set_fingerprint(ToBytes(event.fingerprint));
      stored->set_keys(PackKeys(event.keys));
      stored->set_session_id(event.session_id);
      stored->set_tier(ToMessage(event.tier));
      stored->set_tenant(event.tenant.name);
      break;
    }
    case BlockEvent::Kind::kRemoved: {
      v1::WatchBlocksResponse::Removed* removed = message.mutable_removed();
      removed->set_fingerprint(ToBytes(event.fingerprint));
      removed->set_keys(PackKeys(event.keys));
      removed->set_tenant(event.tenant.name);
      break;
    }
    case BlockEvent::Kind::kSnapshotEnd:
      message.mutable_snapshot_end();
      break;
  }
  return message;
}

v1::WatchBlocksResponse ToMessage(const ShardHeartbeat& heartbeat, uint64_t sequence) {
  v1::WatchBlocksResponse message;
  message.set_sequence(sequence);
  message.mutable_heartbeat()->set_used_bytes(heartbeat.used_bytes);
  message.mutable_heartbeat()->set_capacity_bytes(heartbeat.capacity_bytes);
  message.mutable_heartbeat()->set_draining(heartbeat.draining);
  message.mutable_heartbeat()->set_peer_bytes_per_second(heartbeat.peer_bytes_per_second);
  return message;
}

absl::StatusOr<WatchedMessage> FromMessage(const v1::WatchBlocksResponse& message) {
  WatchedMessage watched{.sequence = message.sequence()};
  switch (message.event_case()) {
    case v1::WatchBlocksResponse::kStored: {
      REPRISE_ASSIGN_OR_RETURN(watched.what, FromStored(message.stored()));
      return watched;
    }
    case v1::WatchBlocksResponse::kRemoved: {
      REPRISE_ASSIGN_OR_RETURN(watched.what, FromRemoved(message.removed()));
      return watched;
    }
    case v1::WatchBlocksResponse::kSnapshotEnd:
      watched.what = BlockEvent{.kind = BlockEvent::Kind::kSnapshotEnd};
      return watched;
    case v1::WatchBlocksResponse::kHeartbeat:
      watched.what =
          ShardHeartbeat{.used_bytes = message.heartbeat().used_bytes(),
                         .capacity_bytes = message.heartbeat().capacity_bytes(),
                         .draining = message.heartbeat().draining(),
                         .peer_bytes_per_second = message.heartbeat().peer_bytes_per_second()};
      return watched;
    case v1::WatchBlocksResponse::EVENT_NOT_SET:
      break;
  }
  return Refusal(absl::StatusCode::kInvalidArgument, "EVENT_UNSET",
                 "event is unset or newer than this version: watch anew");
}

}  // namespace reprise::wire
