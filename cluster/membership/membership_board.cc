#include "cluster/membership/membership_board.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace reprise::cluster {

// `mu` is held during the call, which is what keeps calls apart; it is taken before the board's
// own.
struct MembershipBoard::Watcher {
  explicit Watcher(Membership::OnChange call) : on_change(std::move(call)) {}
  absl::Mutex mu;
  const Membership::OnChange on_change;
  bool ended ABSL_GUARDED_BY(mu) = false;
  std::optional<std::vector<Member>> told ABSL_GUARDED_BY(mu);
};

class MembershipBoard::Handle final : public MembershipWatch {
 public:
  Handle(MembershipBoard* board, std::shared_ptr<Watcher> watcher)
      : board_(board), watcher_(std::move(watcher)) {}
  ~Handle() override {
    {
      absl::MutexLock lock(&watcher_->mu);
      watcher_->ended = true;
    }
    absl::MutexLock lock(&board_->mu_);
    std::erase(board_->watchers_, watcher_);
  }

 private:
  MembershipBoard* board_;
  std::shared_ptr<Watcher> watcher_;
};

MembershipBoard::MembershipBoard(std::string source, LogLine log) : log_(std::move(log)) {
  state_.source = std::move(source);
}

std::vector<Member> MembershipBoard::Members() const {
  absl::MutexLock lock(&mu_);
  return members_;
}

std::unique_ptr<MembershipWatch> MembershipBoard::Watch(Membership::OnChange on_change) {
  auto watcher = std::make_shared<Watcher>(std::move(on_change));
  {
    absl::MutexLock lock(&mu_);
    watchers_.push_back(watcher);
  }
  Deliver(*watcher);
  return std::make_unique<Handle>(this, std::move(watcher));
}

void MembershipBoard::Publish(std::vector<Member> members) {
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    absl::MutexLock lock(&mu_);
    if (members_ == members) return;
    members_ = std::move(members);
    watchers = watchers_;
  }
  for (const auto& watcher : watchers) Deliver(*watcher);
}

MembershipState MembershipBoard::State() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

void MembershipBoard::NoteTrouble(absl::string_view trouble, absl::Time now) {
  std::string line;
  {
    absl::MutexLock lock(&mu_);
    if (state_.trouble == trouble) return;
    if (state_.trouble.empty()) state_.troubled_since = now;
    if (trouble.empty()) state_.troubled_since = absl::InfiniteFuture();
    state_.trouble = std::string(trouble);
    line = trouble.empty() ? absl::StrCat("members: ", state_.source, " is good again")
                           : absl::StrCat("members: ", state_.source,
                                          " cannot be read, or not all of it, and the last good "
                                          "members stay: ",
                                          trouble);
  }
  if (log_) log_(line);
}

// Reads the members under the watcher's lock, so that the last call always carries the newest.
void MembershipBoard::Deliver(Watcher& watcher) {
  absl::MutexLock lock(&watcher.mu);
  if (watcher.ended) return;
  std::vector<Member> members = Members();
  if (watcher.told == members) return;
  watcher.told = members;
  watcher.on_change(members);
}

}  // namespace reprise::cluster
