// What every membership promises (cluster/membership/membership.h), run against each implementation
// by a Rig that knows how to change the members behind it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"

namespace reprise::cluster {

class MembershipRig {
 public:
  virtual ~MembershipRig() = default;
  virtual Membership& membership() = 0;
  // Changes what the membership reads; it may be seen later.
  virtual void Change(const std::vector<Member>& members) = 0;
};

// An address begins with its id: what is read from DNS can be no other.
inline std::vector<Member> MembersNamed(const std::vector<std::string>& names) {
  std::vector<Member> members;
  int port = 7000;
  for (const std::string& name : names) {
    members.push_back({.id = {name}, .address = absl::StrCat(name, ".test:", ++port)});
  }
  return members;
}

// What a watcher was told, in order.
class Recorder {
 public:
  Membership::OnChange Call() {
    return [this](const std::vector<Member>& members) {
      absl::MutexLock lock(&mu_);
      calls_.push_back(members);
    };
  }
  // True once the last call carried `members`.
  bool WaitFor(const std::vector<Member>& members) {
    absl::MutexLock lock(&mu_);
    const auto told = [&] { return !calls_.empty() && calls_.back() == members; };
    return mu_.AwaitWithTimeout(absl::Condition(&told), absl::Seconds(20));
  }
  std::vector<std::vector<Member>> calls() {
    absl::MutexLock lock(&mu_);
    return calls_;
  }

 private:
  absl::Mutex mu_;
  std::vector<std::vector<Member>> calls_ ABSL_GUARDED_BY(mu_);
};

template <typename Rig>
class MembershipConformance : public ::testing::Test {
 protected:
  Rig rig_;
};
TYPED_TEST_SUITE_P(MembershipConformance);

TYPED_TEST_P(MembershipConformance, AWatcherIsToldTheMembersOfTheMoment) {
  Recorder recorder;
  auto watch = this->rig_.membership().Watch(recorder.Call());
  ASSERT_EQ(recorder.calls().size(), 1u);
  EXPECT_EQ(recorder.calls()[0], this->rig_.membership().Members());
}

TYPED_TEST_P(MembershipConformance, AWatcherIsToldOfChangesInIdOrder) {
  Recorder recorder;
  auto watch = this->rig_.membership().Watch(recorder.Call());
  std::vector<Member> shuffled = MembersNamed({"shard-2", "shard-0", "shard-1"});
  this->rig_.Change(shuffled);
  std::sort(shuffled.begin(), shuffled.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  EXPECT_TRUE(recorder.WaitFor(shuffled));
  EXPECT_EQ(this->rig_.membership().Members(), shuffled);
  const auto fewer = MembersNamed({"shard-1"});
  this->rig_.Change(fewer);
  EXPECT_TRUE(recorder.WaitFor(fewer));
}

TYPED_TEST_P(MembershipConformance, AWatcherIsNeverToldTheSameTwice) {
  Recorder recorder;
  auto watch = this->rig_.membership().Watch(recorder.Call());
  for (int i = 0; i < 3; ++i) this->rig_.Change(MembersNamed({"shard-0"}));
  this->rig_.Change(MembersNamed({"shard-0", "shard-1"}));
  ASSERT_TRUE(recorder.WaitFor(MembersNamed({"shard-0", "shard-1"})));
  const auto calls = recorder.calls();
  for (size_t i = 1; i < calls.size(); ++i) EXPECT_NE(calls[i - 1], calls[i]);
}

TYPED_TEST_P(MembershipConformance, AnEndedWatchIsCalledNoMore) {
  Recorder ended;
  Recorder living;
  auto watch = this->rig_.membership().Watch(ended.Call());
  auto other = this->rig_.membership().Watch(living.Call());
  watch.reset();
  const size_t calls = ended.calls().size();
  this->rig_.Change(MembersNamed({"shard-5"}));
  ASSERT_TRUE(living.WaitFor(MembersNamed({"shard-5"})));
  EXPECT_EQ(ended.calls().size(), calls);
}

TYPED_TEST_P(MembershipConformance, WatchersComeAndGoDuringChanges) {
  std::thread changer([&] {
    for (int i = 0; i < 50; ++i) {
      this->rig_.Change(MembersNamed({absl::StrCat("shard-", i)}));
    }
  });
  for (int i = 0; i < 200; ++i) {
    Recorder recorder;
    auto watch = this->rig_.membership().Watch(recorder.Call());
    EXPECT_GE(recorder.calls().size(), 1u);
  }
  changer.join();
  Recorder recorder;
  auto watch = this->rig_.membership().Watch(recorder.Call());
  EXPECT_TRUE(recorder.WaitFor(MembersNamed({"shard-49"})));
}

REGISTER_TYPED_TEST_SUITE_P(MembershipConformance, AWatcherIsToldTheMembersOfTheMoment,
                            AWatcherIsToldOfChangesInIdOrder, AWatcherIsNeverToldTheSameTwice,
                            AnEndedWatchIsCalledNoMore, WatchersComeAndGoDuringChanges);

}  // namespace reprise::cluster
