#include "service/shard/handlers/describe_handler.h"

#include <optional>
#include <utility>

#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/wire/enums.h"
#include "proto/wire/spec.h"
#include "service/shard/shard_snapshot.h"

namespace reprise::shard {
namespace {

uint64_t Milliseconds(absl::Duration time) {
  return static_cast<uint64_t>(absl::ToInt64Milliseconds(time));
}

// Of what all claims may have.
uint64_t TenantsShare(size_t most) {
  return static_cast<uint64_t>(limits::kClaimsTenantShare * static_cast<double>(most));
}

// What a caller can run into. Units are in the names.
NamedCounters Limits() {
  return {
      {"attachments_max", limits::kAttachmentsMax},
      {"block_bytes_max", limits::kBlockBytesMax},
      {"block_bytes_min", limits::kBlockBytesMin},
      {"calls_max", limits::kUnaryCallsMax},
      {"claim_keys_ahead_max", limits::kClaimKeysAheadMax},
      {"claim_keys_ahead_per_tenant_max", TenantsShare(limits::kClaimKeysAheadMax)},
      {"claim_priority_max", limits::kClaimPriorityMax},
      {"claim_ttl_max_ms", Milliseconds(limits::kClaimTtlMax)},
      {"claims_max", limits::kClaimsMax},
      {"claims_per_tenant_max", TenantsShare(limits::kClaimsMax)},
      {"demote_hint_blocks_max", limits::kDemoteHintBlocksMax},
      {"disk_reads_max", limits::kDiskReadsMax},
      {"drain_deadline_max_ms", Milliseconds(limits::kDrainDeadlineMax)},
      {"drain_deadline_ms", Milliseconds(limits::kDrainDeadline)},
      {"journal_patience_ms", Milliseconds(limits::kJournalPatience)},
      {"keep_alive_interval_ms", Milliseconds(limits::kKeepAliveInterval)},
      {"keep_alives_missed_max", static_cast<uint64_t>(limits::kKeepAlivesMissedMax)},
      {"lease_age_max_ms", Milliseconds(limits::kLeaseAgeMax)},
      {"lease_ttl_max_ms", Milliseconds(limits::kLeaseTtlMax)},
      {"lease_ttl_ms", Milliseconds(limits::kLeaseTtl)},
      {"leases_per_attachment_max", limits::kLeasesPerAttachmentMax},
      {"message_bytes_max", limits::kMessageBytesMax},
      {"metadata_bytes_max", limits::kMetadataBytesMax},
      {"name_bytes_max", limits::kNameBytesMax},
      {"peer_tenants_max", limits::kPeerTenantsMax},
      {"prompt_blocks_max", limits::kPromptBlocksMax},
      {"pull_deadline_max_ms", Milliseconds(limits::kPullDeadline)},
      {"pull_peers_max", limits::kPullPeersMax},
      {"pulls_max", limits::kPullsMax},
      {"read_streams_max", limits::kReadStreamsMax},
      {"reservation_age_max_ms", Milliseconds(limits::kReservationAgeMax)},
      {"reservation_ttl_max_ms", Milliseconds(limits::kReservationTtlMax)},
      {"reservation_ttl_ms", Milliseconds(limits::kReservationTtl)},
      {"reservations_per_attachment_max", limits::kReservationsPerAttachmentMax},
      {"save_grace_ms", Milliseconds(limits::kSaveGrace)},
      {"scrub_bytes_per_second", limits::kScrubBytesPerSecond},
      {"spec_text_bytes_max", limits::kSpecTextBytesMax},
      {"specs_per_attachment_max", limits::kSpecsPerAttachmentMax},
      {"specs_per_tenant_max", limits::kSpecsPerTenantMax},
      {"status_connections_max", limits::kStatusConnectionsMax},
      {"status_request_bytes_max", limits::kStatusRequestBytesMax},
      {"status_request_timeout_ms", Milliseconds(limits::kStatusRequestTimeout)},
      {"status_response_timeout_ms", Milliseconds(limits::kStatusResponseTimeout)},
      {"stream_age_max_ms", Milliseconds(limits::kByteStreamAgeMax)},
      {"stream_chunk_bytes_max", limits::kStreamChunkBytesMax},
      {"streams_per_connection_max", limits::kStreamsPerConnectionMax},
      {"tcp_connections_max", limits::kTcpConnectionsMax},
      {"tcp_connections_per_attachment_max", limits::kTcpConnectionsPerAttachmentMax},
      {"tcp_disk_wait_ms", Milliseconds(limits::kTcpDiskWait)},
      {"tcp_frame_timeout_ms", Milliseconds(limits::kTcpFrameTimeout)},
      {"tcp_hello_timeout_ms", Milliseconds(limits::kTcpHelloTimeout)},
      {"tcp_idle_max_ms", Milliseconds(limits::kTcpIdleMax)},
      {"tcp_verb_bytes_max", limits::kTcpVerbBytesMax},
      {"tcp_writes_max", limits::kTcpWritesMax},
      {"tenant_bytes_max", limits::kTenantBytesMax},
      {"tls_reload_interval_ms", Milliseconds(limits::kTlsReloadInterval)},
      {"watch_queue_events_max", limits::kWatchQueueEventsMax},
      {"watchers_max", limits::kWatchersMax},
      {"write_calls_max", limits::kUnaryWriteCallsMax},
      {"write_streams_max", limits::kWriteStreamsMax},
  };
}

void Append(NamedCounters& to, NamedCounters from) {
  for (auto& counter : from) to.push_back(std::move(counter));
}

}  // namespace

absl::Status DescribeHandler::Handle(const wire::Caller& caller,
                                     const v1::ShardServiceDescribeRequest&,
                                     v1::ShardServiceDescribeResponse& response) {
  // Whoever operates the cluster sees what everybody stores.
  const ShardSnapshot shard =
      SnapshotOf(core_, caller.operates ? std::nullopt : std::optional(caller.tenant));
  response.set_shard_id(shard.id);
  response.set_version(shard.version);
  response.set_incarnation(core_.incarnation);
  response.set_uptime_ms(Milliseconds(shard.uptime));
  response.set_draining(shard.draining);
  for (const TierUse& use : shard.engine.tiers) {
    v1::ShardServiceDescribeResponse::TierUse* tier = response.add_tiers();
    tier->set_tier(wire::ToMessage(use.tier));
    tier->set_capacity_bytes(use.capacity_bytes);
    tier->set_used_bytes(use.used_bytes);
    tier->set_lost(use.lost);
  }
  if (shard.engine.kept_disk.has_value()) {
    v1::ShardServiceDescribeResponse::KeptDisk* disk = response.mutable_kept_disk();
    disk->set_restored_blocks(shard.engine.kept_disk->restored_blocks);
    disk->set_waiting_blocks(shard.engine.kept_disk->waiting_blocks);
    disk->set_to_scrub_blocks(shard.engine.kept_disk->to_scrub_blocks);
    disk->set_clean(shard.engine.kept_disk->clean);
    disk->set_why_empty(shard.engine.kept_disk->why_empty);
    disk->set_why_not_kept(shard.engine.kept_disk->why_not_kept);
  }
  for (const SpecUse& use : shard.engine.specs) {
    v1::ShardServiceDescribeResponse::Spec* spec = response.add_specs();
    spec->set_fingerprint(wire::ToBytes(use.fingerprint));
    *spec->mutable_spec() = wire::ToMessage(use.spec);
    spec->set_block_bytes(use.block_bytes);
    spec->set_blocks(use.blocks);
    spec->set_tenant(use.tenant.name);
  }
  response.set_blocks(shard.engine.blocks);
  response.set_leases(shard.engine.leases);
  response.set_reservations(shard.engine.reservations);
  response.set_attachments(shard.engine.attachments);
  NamedCounters counters = shard.engine.counters;
  counters.emplace_back("refused_overload", shard.refused_overload);
  Append(counters, shard.stream.Named(LaneKind::kStream));
  if (shard.peers.has_value()) Append(counters, shard.peers->Named());
  if (core_.lanes_use) Append(counters, shard.lanes.Named());
  for (const auto& [name, value] : counters) {
    v1::ShardServiceDescribeResponse::Counter* counter = response.add_counters();
    counter->set_name(name);
    counter->set_value(value);
  }
  for (const auto& [name, value] : Limits()) {
    v1::ShardServiceDescribeResponse::Limit* limit = response.add_limits();
    limit->set_name(name);
    limit->set_value(value);
  }
  for (const LaneKind lane : shard.lanes_offered) response.add_lanes(wire::ToMessage(lane));
  for (const AbsentLane& absent : shard.lanes_absent) {
    v1::ShardServiceDescribeResponse::AbsentLane* lane = response.add_absent_lanes();
    lane->set_lane(wire::ToMessage(absent.lane));
    lane->set_why(absent.why);
  }
  if (shard.peers.has_value()) {
    const cluster::MembershipState& members = shard.peers->membership;
    response.mutable_membership()->set_source(members.source);
    response.mutable_membership()->set_trouble(members.trouble);
    response.mutable_membership()->set_trouble_ms(
        Milliseconds(members.TroubledFor(MonotonicClock().Now())));
  }
  response.mutable_sizing()->set_asked_tokens(shard.engine.sizing.asked_tokens);
  for (const SizingEstimate::Point& estimate : shard.engine.sizing.points) {
    v1::ShardServiceDescribeResponse::Sizing::Point* point =
        response.mutable_sizing()->add_points();
    point->set_memory_bytes(estimate.memory_bytes);
    point->set_hit_tokens(estimate.hit_tokens);
  }
  const ClaimsUse& use = shard.engine.claims;
  v1::ShardServiceDescribeResponse::Claims* const claims = response.mutable_claims();
  claims->set_claims(use.claims);
  claims->set_claimed_bytes(use.claimed_bytes);
  claims->set_pinned_bytes(use.pinned_bytes);
  claims->set_claimed_bytes_max(use.claimed_bytes_max);
  claims->set_pinned_bytes_max(use.pinned_bytes_max);
  return absl::OkStatus();
}

}  // namespace reprise::shard
