// The other shards, as one shard has to do with them: who they are, in which order a chain asks
// them, the links to them, and how fast blocks move between them and this one. What copies, pulls
// and hands over blocks shares one of these.
//
// Invariants: a shard is never its own peer; one link per peer and tenant.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/link/nccl_context.h"
#include "cluster/membership/membership.h"
#include "cluster/peer/peer_links.h"
#include "proto/types/block_key.h"
#include "proto/types/clock.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

struct PeersOptions {
  ShardId self;
  Membership* membership = nullptr;  // REQUIRES: outlives the peers
  const Clock* clock = nullptr;      // REQUIRES: outlives the peers; nullptr: the monotonic clock
  // How a peer is reached; empty: ShardLink::Connect over the lanes below.
  PeerLinks::Connect connect;
  std::vector<LaneKind> lanes = {LaneKind::kStream};
  std::shared_ptr<const NcclContext> nccl;  // for kNccl among them
  // This shard's own, which lets it speak for every tenant; nullptr: plaintext, and one tenant.
  std::shared_ptr<const wire::Credentials> credentials;
  // Told what went wrong with a peer, one line, the same once in kBreakerOpenMax. Empty: nobody is
  // told.
  std::function<void(absl::string_view)> log;
};

class Peers {
 public:
  explicit Peers(PeersOptions options);

  // In the placement order of the chain, whether they answer or not.
  std::vector<Member> InOrder(absl::string_view session_id, std::span<const BlockKey> keys) const;
  std::optional<Member> Find(const ShardId& id) const;
  size_t count() const;

  // As PeerLinks::Get. What goes wrong is logged and counted; `doing` is for the log, as in
  // "replication to".
  absl::StatusOr<std::shared_ptr<ShardLink>> Link(const Member& peer, const Tenant& tenant,
                                                  PeerUse use, absl::string_view doing,
                                                  absl::Time deadline);
  void CallSucceeded(const Member& peer) { links_.Succeeded(peer); }
  // Without an answer in time the peer is left alone for a while; a refusal is an answer.
  void CallFailed(const Member& peer, absl::string_view doing, const absl::Status& status);
  uint64_t failures() const;
  // Ends the links and what is under way on them: this shard stops.
  void Close() { links_.Close(); }
  // When the first of the peers that are left alone may be tried again; InfiniteFuture: none is.
  absl::Time NextAwake() const { return links_.NextAwake(); }

  Membership& membership() const { return *options_.membership; }
  const Clock& clock() const { return clock_; }
  const ShardId& self() const { return options_.self; }

  // `bytes` came from a peer or went to one in `time`.
  void NoteMoved(uint64_t bytes, absl::Duration time);
  // What was seen lately, newer bytes counting more (limits::kRateHalfLifeBytes); 0: nothing was.
  uint64_t bytes_per_second() const;

 private:
  void Note(const Member& peer, absl::string_view doing, const absl::Status& status);

  const PeersOptions options_;
  const Clock& clock_;
  PeerLinks links_;
  mutable absl::Mutex mu_;
  double moved_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  double moved_seconds_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t failures_ ABSL_GUARDED_BY(mu_) = 0;
  // When what went wrong with a peer was told.
  absl::flat_hash_map<std::pair<ShardId, absl::StatusCode>, absl::Time> told_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
