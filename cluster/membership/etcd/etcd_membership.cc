#include "cluster/membership/etcd/etcd_membership.h"

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cluster/membership/etcd/etcd_registration.h"
#include "cluster/membership/etcd/member_table.h"
#include "cluster/membership/membership_board.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

class EtcdMembershipImpl final : public EtcdMembership {
 public:
  EtcdMembershipImpl(EtcdMembershipOptions options, std::unique_ptr<EtcdClient> watcher,
                     std::unique_ptr<EtcdClient> registrar)
      : options_(std::move(options)),
        board_(absl::StrCat(options_.etcd.Name(), ", ", options_.prefix), options_.log),
        client_(std::move(watcher)),
        registrar_(std::move(registrar)),
        table_(options_.prefix, options_.vanished_kept),
        follower_([this] { Follow(); }) {}

  ~EtcdMembershipImpl() override {
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    client_->Cancel();
    follower_.join();
  }

  std::vector<Member> Members() const override { return board_.Members(); }
  std::unique_ptr<MembershipWatch> Watch(OnChange on_change) override {
    return board_.Watch(std::move(on_change));
  }

  MembershipState State() const override {
    MembershipState state = board_.State();
    absl::MutexLock lock(&mu_);
    if (registration_ == nullptr || !state.trouble.empty()) return state;
    const EtcdRegistration::State own = registration_->state();
    state.trouble = own.trouble;
    state.troubled_since = own.troubled_since;
    return state;
  }

  void Join(const Member& self) override {
    absl::MutexLock lock(&mu_);
    REPRISE_CHECK(registrar_ != nullptr);
    registration_ =
        std::make_unique<EtcdRegistration>(EtcdRegistrationOptions{.self = self,
                                                                   .prefix = options_.prefix,
                                                                   .ttl = options_.registration_ttl,
                                                                   .log = options_.log},
                                           std::move(registrar_));
  }

  void Leave(absl::Duration timeout) override {
    std::unique_ptr<EtcdRegistration> registration;
    {
      absl::MutexLock lock(&mu_);
      registration = std::move(registration_);
    }
    if (registration != nullptr) registration->Leave(timeout);
  }

 private:
  void Follow() {
    absl::Duration retry = limits::kEtcdRetryMin;
    for (;;) {
      bool listed = false;
      const absl::Time begun = MonotonicClock().Now();
      const absl::Status status = ListThenWatch(listed);
      if (WaitToStop(absl::ZeroDuration())) return;
      // A watch that ends is followed by a listing, which says whether that was any trouble.
      if (!listed) board_.NoteTrouble(status.message(), MonotonicClock().Now());
      // An etcd that lists and lets no watch live is not asked all the time either.
      const bool lived = listed && MonotonicClock().Now() - begun > limits::kEtcdRetryMax;
      retry = lived ? limits::kEtcdRetryMin : std::min(retry * 2, limits::kEtcdRetryMax);
      if (WaitToStop(retry)) return;
    }
  }

  absl::Status ListThenWatch(bool& listed) {
    REPRISE_ASSIGN_OR_RETURN(const EtcdListing listing, client_->List(options_.prefix));
    listed = true;
    table_.Replace(listing.entries, MonotonicClock().Now());
    Publish();
    int64_t revision = listing.revision;
    for (;;) {
      REPRISE_RETURN_IF_ERROR(
          client_->Watch(options_.prefix, revision + 1, options_.watch_age,
                         [&](std::span<const EtcdChange> changes, int64_t seen) {
                           for (const EtcdChange& change : changes)
                             table_.Apply(change, MonotonicClock().Now());
                           // One that was begun ahead of the store answers with an older revision.
                           revision = std::max(revision, seen);
                           if (!changes.empty()) Publish();
                         }));
      Publish();
    }
  }

  void Publish() {
    table_.Forget(MonotonicClock().Now());
    board_.Publish(table_.Members());
    board_.NoteTrouble(table_.Trouble(), MonotonicClock().Now());
  }

  // True when it is time to stop.
  bool WaitToStop(absl::Duration timeout) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&stopping_), timeout);
  }

  const EtcdMembershipOptions options_;
  MembershipBoard board_;
  const std::unique_ptr<EtcdClient> client_;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<EtcdClient> registrar_ ABSL_GUARDED_BY(mu_);  // until Join
  std::unique_ptr<EtcdRegistration> registration_ ABSL_GUARDED_BY(mu_);
  MemberTable table_;  // the follower's alone
  std::thread follower_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EtcdMembership>> EtcdMembership::Create(
    EtcdMembershipOptions options) {
  if (options.prefix.size() > limits::kNameBytesMax || !absl::EndsWith(options.prefix, "/")) {
    return Refusal(absl::StatusCode::kInvalidArgument, "ETCD_FLAGS",
                   absl::StrCat("--etcd-prefix \"", options.prefix.substr(0, limits::kNameBytesMax),
                                "\" is not 1 to ", limits::kNameBytesMax,
                                " bytes that end in '/': write e.g. /reprise/members/"));
  }
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<EtcdClient> watcher, options.dial(options.etcd));
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<EtcdClient> registrar, options.dial(options.etcd));
  return std::make_unique<EtcdMembershipImpl>(std::move(options), std::move(watcher),
                                              std::move(registrar));
}

}  // namespace reprise::cluster
