#include "cluster/peer/peer_links.h"

#include <algorithm>
#include <utility>
#include <vector>

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

PeerLinks::Peer& PeerLinks::PeerAt(const Member& member, std::shared_ptr<ShardLink>& dropped) {
  Peer& peer = peers_[member.id];
  if (peer.address != member.address) {
    dropped = std::move(peer.link);
    peer = Peer{.address = member.address};
  }
  return peer;
}

absl::StatusOr<std::shared_ptr<ShardLink>> PeerLinks::Get(const Member& member, PeerUse use,
                                                          absl::Time deadline) {
  std::shared_ptr<ShardLink> dropped;
  {
    absl::MutexLock lock(&mu_);
    if (closed_) return Resting(member, "is not asked by a shard that stops");
    Peer& peer = PeerAt(member, dropped);
    if (peer.link != nullptr && peer.link->alive()) {
      if (use == PeerUse::kWrite && peer.link->draining()) {
        return Resting(member, "is about to stop");
      }
      return peer.link;
    }
    if (peer.link != nullptr) dropped = std::exchange(peer.link, nullptr);
    if (clock_.Now() < peer.rests_until) return Resting(member, "did not answer lately");
  }
  dropped.reset();
  const absl::Time give_up = std::min(deadline, absl::Now() + limits::kPeerConnectTimeout);
  absl::StatusOr<std::unique_ptr<ShardLink>> made = connect_(member, give_up);
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
  std::shared_ptr<ShardLink> replaced = link;
  absl::MutexLock lock(&mu_);
  PeerAt(member, dropped).link.swap(replaced);
  if (use == PeerUse::kWrite && link->draining()) return Resting(member, "is about to stop");
  return link;
}

void PeerLinks::Failed(const Member& member) {
  std::shared_ptr<ShardLink> dropped, failed;
  absl::MutexLock lock(&mu_);
  Peer& peer = PeerAt(member, dropped);
  failed.swap(peer.link);
  peer.rest = std::clamp(2 * peer.rest, limits::kBreakerOpenMin, limits::kBreakerOpenMax);
  peer.rests_until = clock_.Now() + peer.rest;
}

void PeerLinks::Close() {
  std::vector<std::shared_ptr<ShardLink>> links;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    for (const auto& [id, peer] : peers_) {
      if (peer.link != nullptr) links.push_back(peer.link);
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
  std::shared_ptr<ShardLink> dropped;
  absl::MutexLock lock(&mu_);
  PeerAt(member, dropped).rest = absl::ZeroDuration();
}

}  // namespace reprise::cluster
