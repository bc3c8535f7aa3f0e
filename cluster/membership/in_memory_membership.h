// Membership that its owner sets: for tests, for members given on a command line, and for a cluster
// inside one process.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "cluster/membership/membership.h"
#include "cluster/membership/membership_board.h"

namespace reprise::cluster {

class InMemoryMembership final : public Membership {
 public:
  explicit InMemoryMembership(std::vector<Member> members = {}) {
    board_.Publish(std::move(members));
  }

  // REQUIRES: each id once. Watchers have been called when it returns.
  void Set(std::vector<Member> members) { board_.Publish(std::move(members)); }

  std::vector<Member> Members() const override { return board_.Members(); }
  MembershipState State() const override { return board_.State(); }
  [[nodiscard]] std::unique_ptr<MembershipWatch> Watch(OnChange on_change) override {
    return board_.Watch(std::move(on_change));
  }

 private:
  MembershipBoard board_{"given at the start"};
};

}  // namespace reprise::cluster
