// The part that every membership shares: the members of the moment, the calls to watchers, and what
// is wrong with the source. Implementations decide where members come from and call Publish.
//
// Invariants: a watcher's calls never overlap and never repeat equal members.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"

namespace reprise::cluster {

class MembershipBoard {
 public:
  using LogLine = std::function<void(absl::string_view)>;

  // `source`: as MembershipState's. `log` is told once of each trouble and when it is over; empty:
  // nobody is told.
  explicit MembershipBoard(std::string source, LogLine log = {});
  MembershipBoard(const MembershipBoard&) = delete;
  MembershipBoard& operator=(const MembershipBoard&) = delete;

  std::vector<Member> Members() const;
  MembershipState State() const;
  std::unique_ptr<MembershipWatch> Watch(Membership::OnChange on_change);

  // Sorts by id. REQUIRES: each id once. Watchers have been called when it returns.
  void Publish(std::vector<Member> members);

  // Why the source cannot be read, or not all of it; empty: it can.
  void NoteTrouble(absl::string_view trouble, absl::Time now);

 private:
  struct Watcher;
  class Handle;
  void Deliver(Watcher& watcher);

  const LogLine log_;
  mutable absl::Mutex mu_;
  MembershipState state_ ABSL_GUARDED_BY(mu_);
  std::vector<Member> members_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
