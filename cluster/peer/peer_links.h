// One link per peer and tenant, made when it is needed, and a while of being left alone for a peer
// that did not answer.
//
// Invariants: at most kPeerTenantsMax links to one peer, those used last; a peer that failed is
// tried again after kBreakerOpenMin, doubling up to kBreakerOpenMax, and at once when its address
// changes; nobody waits for the end of a link.
//
// Thread safety: all methods may be called from any thread. Get may block until its deadline.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/link/link_reaper.h"
#include "cluster/link/shard_link.h"
#include "cluster/membership/membership.h"
#include "proto/types/clock.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

// A shard that is about to stop is read from, and not written to.
enum class PeerUse { kRead, kWrite };

class PeerLinks {
 public:
  using Connect = std::function<absl::StatusOr<std::unique_ptr<ShardLink>>(
      const Member& peer, const Tenant& tenant, absl::Time deadline)>;
  PeerLinks(Connect connect, const Clock& clock) : connect_(std::move(connect)), clock_(clock) {}

  // A living link to `peer` that reads and writes `tenant`'s blocks. UNAVAILABLE (reason
  // PEER_RESTING) without trying while the peer is left alone, or when it drains and is to be
  // written to; else what connecting says. Anything but PEER_RESTING has been counted as a failure.
  absl::StatusOr<std::shared_ptr<ShardLink>> Get(const Member& peer, const Tenant& tenant,
                                                 PeerUse use, absl::Time deadline);
  // A call on a link of `peer` did not come back: its links are given up.
  void Failed(const Member& peer);
  void Succeeded(const Member& peer);
  // Ends every link, and with it the calls that are under way; Get is UNAVAILABLE from now on.
  void Close();
  // When the first of the peers that are left alone may be tried again; InfiniteFuture: none is.
  absl::Time NextAwake() const;

 private:
  using Links = std::vector<std::shared_ptr<ShardLink>>;
  struct TenantLink {
    std::shared_ptr<ShardLink> link;
    uint64_t used = 0;  // by uses_: larger is later
  };
  struct Peer {
    std::string address;
    absl::flat_hash_map<Tenant, TenantLink> links;
    absl::Duration rest;  // of the last failure; zero: the last call succeeded
    absl::Time rests_until = absl::InfinitePast();
  };
  // `dropped`, here and below, gets links that are of no use any more, to be let go of without the
  // lock.
  Peer& PeerAt(const Member& member, Links& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void DropAll(Peer& peer, Links& dropped);
  void Put(Peer& peer, const Tenant& tenant, std::shared_ptr<ShardLink> link, Links& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Connect connect_;
  const Clock& clock_;
  LinkReaper reaper_;  // outlives the peers
  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t uses_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<ShardId, Peer> peers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
