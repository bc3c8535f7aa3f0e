// The part that every membership shares: the members of the moment, and the calls to watchers.
// Implementations decide where members come from and call Publish.
//
// Invariants: a watcher's calls never overlap and never repeat equal members.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/membership/membership.h"

namespace reprise::cluster {

class MembershipBoard {
 public:
  MembershipBoard() = default;
  MembershipBoard(const MembershipBoard&) = delete;
  MembershipBoard& operator=(const MembershipBoard&) = delete;

  std::vector<Member> Members() const;
  std::unique_ptr<MembershipWatch> Watch(Membership::OnChange on_change);

  // Sorts by id. REQUIRES: each id once. Watchers have been called when it returns.
  void Publish(std::vector<Member> members);

 private:
  struct Watcher;
  class Handle;
  void Deliver(Watcher& watcher);

  mutable absl::Mutex mu_;
  std::vector<Member> members_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
