// What tests of one shard among others share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/membership/in_memory_membership.h"
#include "cluster/peer/peers.h"
#include "cluster/placement/placement.h"
#include "tests/support/manual_clock.h"
#include "tests/unit/cluster/peer/fake_chains.h"
#include "tests/unit/cluster/peer/fake_peers.h"

namespace reprise::cluster {

// "shard-0", its peers, and chains of its own.
class PeeredTest : public ::testing::Test {
 protected:
  explicit PeeredTest(int shards) {
    std::vector<Member> members;
    for (int i = 0; i < shards; ++i) {
      const std::string id = absl::StrCat("shard-", i);
      members.push_back({.id = {id}, .address = absl::StrCat("127.0.0.1:", 7000 + i)});
      ids_.push_back({id});
      cluster_.peer(id);
    }
    membership_.Set(members);
  }
  static ReplicationJob Job(const std::string& session, size_t blocks) {
    return {.tenant = {kDefaultTenant},
            .spec = testing::SmallSpec(),
            .session_id = session,
            .keys = testing::ChainNamed(session, blocks)};
  }
  // The peers of a session, the next one first.
  std::vector<std::string> PeersOf(const std::string& session) {
    std::vector<std::string> peers;
    for (const ShardId& id : PlacementOrder(session, ids_)) {
      if (id.name != "shard-0") peers.push_back(id.name);
    }
    return peers;
  }

  FakeCluster cluster_;
  testing::ManualClock clock_;
  InMemoryMembership membership_;
  std::vector<ShardId> ids_;
  Peers peers_{{.self = {"shard-0"},
                .membership = &membership_,
                .clock = &clock_,
                .connect = cluster_.Connect()}};
};

}  // namespace reprise::cluster
