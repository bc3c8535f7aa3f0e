// The threads of membership in etcd against each other and against the end of everything.
#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/membership/etcd/etcd_membership.h"
#include "cluster/membership/etcd/member_record.h"
#include "tests/support/soon.h"
#include "tests/unit/cluster/membership/etcd/memory_etcd.h"
#include "tests/unit/cluster/membership/membership_conformance.h"

namespace reprise::cluster {
namespace {

using reprise::testing::Soon;

std::unique_ptr<EtcdMembership> Open(MemoryEtcd& etcd) {
  return EtcdMembership::Create({.registration_ttl = absl::Milliseconds(15),
                                 .vanished_kept = absl::Milliseconds(100),
                                 .watch_age = absl::Milliseconds(5),
                                 .dial = [&etcd](const EtcdOptions&) { return etcd.NewClient(); }})
      .value();
}

class MemoryEtcdRig : public MembershipRig {
 public:
  MemoryEtcdRig() {
    Change(MembersNamed({"shard-9"}));
    membership_ = Open(etcd_);
    Soon([&] { return !membership_->Members().empty(); });
  }
  Membership& membership() override { return *membership_; }
  void Change(const std::vector<Member>& members) override {
    for (const Member& old : members_) {
      const auto stays = std::find_if(members.begin(), members.end(),
                                      [&](const Member& member) { return member.id == old.id; });
      if (stays == members.end()) Write(old, true);
    }
    for (const Member& member : members) Write(member, false);
    members_ = members;
  }

 private:
  void Write(const Member& member, bool leaving) {
    etcd_.Put({.key = absl::StrCat("/reprise/members/", member.id.name),
               .value = ToRecord({.member = member, .leaving = leaving})});
  }
  MemoryEtcd etcd_;
  std::vector<Member> members_;
  std::unique_ptr<EtcdMembership> membership_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(MemoryEtcd, MembershipConformance, MemoryEtcdRig);

TEST(EtcdRaces, ShardsComeAndGoWhileLeasesEndAndEverybodyLooks) {
  MemoryEtcd etcd;
  const auto router = Open(etcd);
  std::vector<std::thread> shards;
  for (int i = 0; i < 4; ++i) {
    shards.emplace_back([&etcd, i] {
      for (int life = 0; life < 20; ++life) {
        const auto shard = Open(etcd);
        shard->Join(
            {.id = {absl::StrCat("shard-", i)}, .address = absl::StrCat("10.0.0.1:", i + 1)});
        EXPECT_TRUE(Soon([&] {
          shard->State();
          const std::vector<Member> members = shard->Members();
          return std::any_of(members.begin(), members.end(), [&](const Member& member) {
            return member.id.name == absl::StrCat("shard-", i);
          });
        }));
        if (life % 2 == 0) shard->Leave(absl::Seconds(20));
      }
    });
  }
  std::thread trouble([&etcd, &router] {
    for (int i = 0; i < 50; ++i) {
      etcd.EndLeases();
      Recorder recorder;
      const auto watch = router->Watch(recorder.Call());
      router->State();
    }
  });
  for (std::thread& shard : shards) shard.join();
  trouble.join();
  // Those that said good-bye are gone, and those that did not are forgotten.
  etcd.EndLeases();
  EXPECT_TRUE(Soon([&] { return router->Members().empty(); }));
}

}  // namespace
}  // namespace reprise::cluster
