#include "cluster/membership/in_memory_membership.h"

#include "tests/unit/cluster/membership/membership_conformance.h"

namespace reprise::cluster {
namespace {

class InMemoryRig : public MembershipRig {
 public:
  Membership& membership() override { return membership_; }
  void Change(const std::vector<Member>& members) override { membership_.Set(members); }

 private:
  InMemoryMembership membership_{MembersNamed({"shard-9"})};
};

INSTANTIATE_TYPED_TEST_SUITE_P(InMemory, MembershipConformance, InMemoryRig);

TEST(InMemoryMembershipTest, SetHasToldEveryWatcherWhenItReturns) {
  InMemoryMembership membership;
  Recorder recorder;
  auto watch = membership.Watch(recorder.Call());
  membership.Set(MembersNamed({"shard-0"}));
  ASSERT_EQ(recorder.calls().size(), 2u);
  EXPECT_EQ(recorder.calls()[1], MembersNamed({"shard-0"}));
}

}  // namespace
}  // namespace reprise::cluster
