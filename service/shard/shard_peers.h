// What a shard process has to do with the other shards: copies of what is committed here, chains
// pulled from them when a caller asks for it, and what is stored here handed over before it stops.
//
// Invariants: one link per peer, whoever uses it. Thread safety: all methods may be called from any
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "cluster/peer/drain.h"
#include "cluster/peer/peers.h"
#include "cluster/peer/puller.h"
#include "cluster/peer/replicator.h"
#include "service/shard/engine_source.h"
#include "service/shard/engine_target.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_snapshot.h"

namespace reprise::shard {

struct ShardPeersOptions {
  cluster::PeersOptions peers;
  uint32_t replication = 2;  // copies of a chain, this shard's included
  int gpu = 0;               // of the hbm tier, if there is one
};

class ShardPeers {
 public:
  // REQUIRES: `membership` and `engine` outlive this. The engine tells this of what is committed.
  ShardPeers(std::unique_ptr<cluster::Membership> membership, ShardPeersOptions options,
             ShardEngine& engine);
  ~ShardPeers();

  cluster::Puller& puller() { return puller_; }
  cluster::Drain& drain() { return *drain_; }
  const cluster::Peers& peers() const { return peers_; }
  cluster::Membership& membership() { return *membership_; }

  // Waits for the copies of what was committed last.
  bool AwaitCopies(absl::Duration timeout) { return replicator_->WaitIdle(timeout); }
  // Ends what is under way with other shards.
  void Close() { peers_.Close(); }

  PeersUse use() const;

 private:
  const std::unique_ptr<cluster::Membership> membership_;
  ShardEngine& engine_;
  cluster::Peers peers_;
  EngineSource source_;
  EngineTarget target_;
  cluster::Puller puller_;
  std::unique_ptr<cluster::Replicator> replicator_;
  std::unique_ptr<cluster::Drain> drain_;
};

}  // namespace reprise::shard
