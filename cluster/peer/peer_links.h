// One link per peer, made when it is needed, and a while of being left alone for a peer that did
// not answer.
//
// Invariants: a peer that failed is tried again after kBreakerOpenMin, doubling up to
// kBreakerOpenMax, and at once when its address changes; nobody waits for the end of a link.
//
// Thread safety: all methods may be called from any thread. Get may block until its deadline.
#pragma once

#include <functional>
#include <memory>
#include <string>

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
  using Connect = std::function<absl::StatusOr<std::unique_ptr<ShardLink>>(const Member& peer,
                                                                           absl::Time deadline)>;
  PeerLinks(Connect connect, const Clock& clock) : connect_(std::move(connect)), clock_(clock) {}

  // A living link to `peer`. UNAVAILABLE (reason PEER_RESTING) without trying while the peer is
  // left alone, or when it drains and is to be written to; else what connecting says. Anything but
  // PEER_RESTING has been counted as a failure.
  absl::StatusOr<std::shared_ptr<ShardLink>> Get(const Member& peer, PeerUse use,
                                                 absl::Time deadline);
  // A call on the link of `peer` did not come back: the link is given up.
  void Failed(const Member& peer);
  void Succeeded(const Member& peer);
  // Ends every link, and with it the calls that are under way; Get is UNAVAILABLE from now on.
  void Close();
  // When the first of the peers that are left alone may be tried again; InfiniteFuture: none is.
  absl::Time NextAwake() const;

 private:
  struct Peer {
    std::string address;
    std::shared_ptr<ShardLink> link;
    absl::Duration rest;  // of the last failure; zero: the last call succeeded
    absl::Time rests_until = absl::InfinitePast();
  };
  // `dropped` gets a link that is of no use any more, to be let go of without the lock.
  Peer& PeerAt(const Member& member, std::shared_ptr<ShardLink>& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Connect connect_;
  const Clock& clock_;
  LinkReaper reaper_;  // outlives the peers
  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<ShardId, Peer> peers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
