#include "cluster/peer/peers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/placement/placement.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

PeerLinks::Connect ConnectOver(const PeersOptions& options) {
  if (options.connect) return options.connect;
  return [lanes = options.lanes, nccl = options.nccl, credentials = options.credentials,
          name = absl::StrCat("shard ", options.self.name)](
             const Member& peer, const Tenant& tenant, absl::Time deadline) {
    return ShardLink::Connect({.address = peer.address,
                               .client_name = name,
                               .lanes = lanes,
                               .nccl = nccl,
                               .credentials = credentials,
                               .tenant = tenant},
                              deadline);
  };
}

}  // namespace

Peers::Peers(PeersOptions options)
    : options_(std::move(options)),
      clock_(options_.clock != nullptr ? *options_.clock : MonotonicClock()),
      links_(ConnectOver(options_), clock_) {
  REPRISE_CHECK(options_.membership != nullptr);
}

// The order is taken now: who joins or leaves later moves later chains only.
std::vector<Member> Peers::InOrder(absl::string_view session_id,
                                   std::span<const BlockKey> keys) const {
  std::vector<Member> peers = options_.membership->Members();
  std::erase_if(peers, [this](const Member& member) { return member.id == options_.self; });
  std::vector<PlacementMember> candidates;
  for (const Member& peer : peers) candidates.push_back({.id = peer.id, .weight = peer.weight});
  std::vector<Member> ordered;
  for (uint32_t i : PlacementOrder(PlacementKey(session_id, keys), candidates)) {
    ordered.push_back(std::move(peers[i]));
  }
  return ordered;
}

std::optional<Member> Peers::Find(const ShardId& id) const {
  for (Member& member : options_.membership->Members()) {
    if (member.id == id && id != options_.self) return std::move(member);
  }
  return std::nullopt;
}

size_t Peers::count() const {
  const std::vector<Member> members = options_.membership->Members();
  return static_cast<size_t>(std::count_if(
      members.begin(), members.end(), [this](const Member& m) { return m.id != options_.self; }));
}

void Peers::NoteMoved(uint64_t bytes, absl::Duration time) {
  if (bytes < limits::kRateJobBytesMin || time <= absl::ZeroDuration()) return;
  const double kept = std::exp2(-static_cast<double>(bytes) / limits::kRateHalfLifeBytes);
  absl::MutexLock lock(&mu_);
  moved_bytes_ = moved_bytes_ * kept + static_cast<double>(bytes);
  moved_seconds_ = moved_seconds_ * kept + absl::ToDoubleSeconds(time);
}

uint64_t Peers::bytes_per_second() const {
  absl::MutexLock lock(&mu_);
  return moved_seconds_ > 0 ? static_cast<uint64_t>(moved_bytes_ / moved_seconds_) : 0;
}

absl::StatusOr<std::shared_ptr<ShardLink>> Peers::Link(const Member& peer, const Tenant& tenant,
                                                       PeerUse use, absl::string_view doing,
                                                       absl::Time deadline) {
  absl::StatusOr<std::shared_ptr<ShardLink>> link = links_.Get(peer, tenant, use, deadline);
  if (!link.ok() && RefusalReason(link.status()) != "PEER_RESTING") {
    Note(peer, doing, link.status());
  }
  return link;
}

void Peers::CallFailed(const Member& peer, absl::string_view doing, const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) links_.Failed(peer);
  Note(peer, doing, status);
}

void Peers::Note(const Member& peer, absl::string_view doing, const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    ++failures_;
    const absl::Time now = clock_.Now();
    const auto [told, fresh] = told_.try_emplace({peer.id, status.code()}, now);
    if (!fresh && now - told->second < limits::kBreakerOpenMax) return;
    told->second = now;
  }
  if (!options_.log) return;
  options_.log(absl::StrCat(doing, " ", peer.id.name, " at ", peer.address,
                            " failed, the next shard is tried: ", status.ToString()));
}

uint64_t Peers::failures() const {
  absl::MutexLock lock(&mu_);
  return failures_;
}

}  // namespace reprise::cluster
