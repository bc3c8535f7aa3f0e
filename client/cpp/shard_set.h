// The shards that this client talks to: one link to each, made when it is first needed and again
// when it broke, and a breaker for each, so that a shard in trouble costs one call its time and the
// others nothing.
//
// Invariants: connecting and probing happen on threads of the set, never on a caller's; a caller
// waits for a first connection until its deadline at most, and for a shard that is known to be in
// trouble not at all; whether such a one is back is found out while others are asked, so that it is
// there when it is needed; nobody waits for the end of a link. Thread safety: all methods may be
// called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cpp/call_policy.h"
#include "cluster/link/link_reaper.h"
#include "cluster/link/shard_link.h"
#include "proto/types/clock.h"
#include "proto/types/ids.h"

namespace reprise::client {

using ShardLinkFactory = std::function<absl::StatusOr<std::unique_ptr<cluster::ShardLink>>(
    cluster::ShardLinkOptions, absl::Time deadline)>;

struct ShardSetOptions {
  std::string client_name;
  std::vector<LaneKind> lanes;
  ShardLinkFactory connect;
  const Clock* clock = nullptr;  // nullptr: the monotonic clock
};

// One shard as this client sees it.
struct ShardView {
  std::string address;
  std::string shard_id;  // empty before the first connection
  bool attached = false;
  bool draining = false;
  Breaker::State breaker = Breaker::State::kClosed;
  uint64_t connects = 0;
  uint64_t breaker_opened = 0;
};

class ShardSet {
 public:
  explicit ShardSet(ShardSetOptions options);
  // Waits for connections under way, kConnectDeadline at most, and for links that end.
  ~ShardSet();
  ShardSet(const ShardSet&) = delete;
  ShardSet& operator=(const ShardSet&) = delete;

  // The link to the shard at `address`. UNAVAILABLE at once while its breaker is open (reason
  // SHARD_OUT), DEADLINE_EXCEEDED when it is not attached by then, else why it could not be
  // reached.
  absl::StatusOr<std::shared_ptr<cluster::ShardLink>> Get(const std::string& address,
                                                          absl::Time deadline);

  // What a call on that link came to, and the time it had. A link that the shard does not know any
  // more is dropped.
  void Report(const std::string& address, const std::shared_ptr<cluster::ShardLink>& link,
              const absl::Status& status, absl::Duration budget);

  // Whether a call could be made now, as far as is known.
  bool Attached(const std::string& address) const;
  // "" when it was never attached.
  ShardId IdOf(const std::string& address) const;

  std::vector<ShardView> Views() const;

 private:
  struct Entry {
    Breaker breaker;
    std::shared_ptr<cluster::ShardLink> link;
    std::string shard_id;
    bool busy = false;  // a thread connects or probes
    uint64_t attempts = 0;
    uint64_t connects = 0;
    absl::Status last_failure;
    std::thread thread;
  };
  // Connects, or asks a shard that is attached whether it still answers.
  void StartProbe(const std::string& address, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Probe(const std::string& address, std::shared_ptr<cluster::ShardLink> link);
  // Of every shard that was left out for its while.
  void ProbeThoseDue(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ShardSetOptions options_;
  const Clock& clock_;
  cluster::LinkReaper reaper_;  // outlives the entries
  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);         // entries stay where they are
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();  // for those that are due
};

}  // namespace reprise::client
