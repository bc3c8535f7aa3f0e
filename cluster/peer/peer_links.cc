#include "cluster/peer/peer_links.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::cluster {
namespace {

absl::Status Resting(const Member& peer, absl::string_view why) {
  return Refusal(absl::StatusCode::kUnavailable, "PEER_RESTING",
                 absl::StrCat("peer ", peer.id.name, " ", why, ": the next one is tried"));
}

}  // namespace

PeerLinks::Peer& PeerLinks::PeerAt(const Member& member, Links& dropped) {
  Peer& peer = peers_[member.id];
  if (peer.address != member.address) {
    DropAll(peer, dropped);
    peer = Peer{.address = member.address};
  }
  return peer;
}

void PeerLinks::DropAll(Peer& peer, Links& dropped) {
  for (auto& [tenant, one] : peer.links) dropped.push_back(std::move(one.link));
  peer.links.clear();
}

void PeerLinks::Put(Peer& peer, const Tenant& tenant, std::shared_ptr<ShardLink> link,
                    Links& dropped) {
  TenantLink& place = peer.links[tenant];
  if (place.link != nullptr) dropped.push_back(std::move(place.link));
  place = {.link = std::move(link), .used = ++uses_};
  if (peer.links.size() <= limits::kPeerTenantsMax) return;
  const auto oldest = std::min_element(
      peer.links.begin(), peer.links.end(),
      [](const auto& one, const auto& other) { return one.second.used < other.second.used; });
  dropped.push_back(std::move(oldest->second.link));
  peer.links.erase(oldest);
}

absl::StatusOr<std::shared_ptr<ShardLink>> PeerLinks::Get(const Member& member,
                                                          const Tenant& tenant, PeerUse use,
                                                          absl::Time deadline) {
  Links dropped;
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return Resting(member, "is not asked by a shard that stops");
    Peer& peer = PeerAt(member, dropped);
    if (const auto known = peer.links.find(tenant); known != peer.links.end()) {
      TenantLink& one = known->second;
      if (one.link->alive()) {
        one.used = ++uses_;
        if (use == PeerUse::kWrite && one.link->draining()) {
          return Resting(member, "is about to stop");
        }
        return one.link;
      }
      dropped.push_back(std::move(one.link));
      peer.links.erase(known);
    }
    if (clock_.Now() < peer.rests_until) return Resting(member, "did not answer lately");
  }
  dropped.clear();
  const absl::Time give_up = std::min(deadline, absl::Now() + limits::kPeerConnectTimeout);
  absl::StatusOr<std::unique_ptr<ShardLink>> made = connect_(member, tenant, give_up);
  if (made.ok() && (*made)->shard_id() != member.id) {
    made = Refusal(absl::StatusCode::kUnavailable, "PEER_OTHER",
                   absl::StrCat(member.address, " is ", (*made)->shard_id().name, " and not ",
                                member.id.name, ": the members are out of date"));
  }
  if (!made.ok()) {
    Failed(member);
    return made.status();
  }
  std::shared_ptr<ShardLink> link = reaper_.Own(*std::move(made));
  absl::MutexLock lock(&mu_);
  Put(PeerAt(member, dropped), tenant, link, dropped);
  if (use == PeerUse::kWrite && link->draining()) return Resting(member, "is about to stop");
  return link;
}

void PeerLinks::Failed(const Member& member) {
  Links dropped;
  absl::MutexLock lock(&mu_);
  Peer& peer = PeerAt(member, dropped);
  DropAll(peer, dropped);
  peer.rest = std::clamp(2 * peer.rest, limits::kBreakerOpenMin, limits::kBreakerOpenMax);
  peer.rests_until = clock_.Now() + peer.rest;
}

void PeerLinks::Close() {
  Links links;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    for (const auto& [id, peer] : peers_) {
      for (const auto& [tenant, one] : peer.links) links.push_back(one.link);
    }
  }
  for (const std::shared_ptr<ShardLink>& link : links) link->Close();
}

absl::Time PeerLinks::NextAwake() const {
  const absl::Time now = clock_.Now();
  absl::Time next = absl::InfiniteFuture();
  absl::MutexLock lock(&mu_);
  for (const auto& [id, peer] : peers_) {
    if (peer.rests_until > now) next = std::min(next, peer.rests_until);
  }
  return next;
}

void PeerLinks::Succeeded(const Member& member) {
  Links dropped;
  absl::MutexLock lock(&mu_);
  PeerAt(member, dropped).rest = absl::ZeroDuration();
}

}  // namespace reprise::cluster
