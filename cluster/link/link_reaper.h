// Where links to shards end. The end of a link may take as long as an abort of NCCL that is stuck,
// and its last owner may be a caller with a deadline or somebody who holds a lock: whoever lets go
// of a link that was given to a reaper only closes it, and the reaper's thread waits for the rest.
//
// Invariants: links are closed when they are let go of, and so end side by side, however many there
// are. Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <thread>

#include "cluster/link/shard_link.h"

namespace reprise::cluster {

class LinkReaper {
 public:
  LinkReaper();
  // Waits for the links that were let go of. One that its owners still have ends with its last
  // owner, on that owner's thread.
  ~LinkReaper();

  // The same link, with an end that nobody waits for.
  std::shared_ptr<ShardLink> Own(std::unique_ptr<ShardLink> link);

 private:
  struct Dead;

  const std::shared_ptr<Dead> dead_;  // shared with the links
  std::thread thread_;
};

}  // namespace reprise::cluster
