// Who belongs to the cluster, as a contract: the members now, and a call at every change. Whether a
// member is alive is not this contract's business (FailureDetector, or trying, tells).
//
// What every implementation promises (tests/unit/cluster/membership/membership_conformance.h):
//   - members are sorted by id, each id once;
//   - a watcher is called with the members of the moment it starts, then after each change, never
//     twice with equal members, one call at a time; changes that follow each other quickly may
//     arrive as one;
//   - when the source cannot be read, the last members that were good stay, and State says why.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

struct Member {
  ShardId id;
  std::string address;  // host:port
  double weight = 1.0;
  friend bool operator==(const Member&, const Member&) = default;
};

// How well the members are known.
struct MembershipState {
  std::string source;   // for people: a file, a DNS name, etcd
  std::string trouble;  // a sentence: why it, or some of it, cannot be read; empty: it can
  absl::Time troubled_since = absl::InfiniteFuture();  // without a break; of MonotonicClock

  // Zero while the source can be read.
  absl::Duration TroubledFor(absl::Time now) const {
    return std::max(absl::ZeroDuration(), now - troubled_since);
  }
};

// Ends a watch. Destroying it waits for a call in progress; REQUIRES: not from inside that call.
class MembershipWatch {
 public:
  virtual ~MembershipWatch() = default;
};

class Membership {
 public:
  using OnChange = std::function<void(const std::vector<Member>&)>;

  virtual ~Membership() = default;
  virtual std::vector<Member> Members() const = 0;
  virtual MembershipState State() const = 0;
  // REQUIRES: the watch ends before the membership. `on_change` must not call back into the
  // membership.
  [[nodiscard]] virtual std::unique_ptr<MembershipWatch> Watch(OnChange on_change) = 0;

  // Of a shard that serves: where members register themselves, it is one from now on, in the
  // background and for as long as this lives. Elsewhere nothing happens: somebody else says who is
  // a member. REQUIRES: at most once.
  virtual void Join(const Member& self) {}
  // After Join: a good-bye, before the shard stops. Returns within `timeout`.
  virtual void Leave(absl::Duration timeout) {}
};

}  // namespace reprise::cluster
