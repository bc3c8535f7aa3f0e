#include "cluster/membership/etcd/etcd_registration.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/membership/etcd/member_record.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {

EtcdRegistration::EtcdRegistration(EtcdRegistrationOptions options,
                                   std::unique_ptr<EtcdClient> client)
    : options_(std::move(options)),
      key_(absl::StrCat(options_.prefix, options_.self.id.name)),
      client_(std::move(client)),
      thread_([this] { Run(); }) {}

EtcdRegistration::~EtcdRegistration() {
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  client_->Cancel();
  thread_.join();
}

void EtcdRegistration::Leave(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  leaving_ = true;
  ending_ = true;
  mu_.AwaitWithTimeout(absl::Condition(&ended_), std::min(timeout, limits::kEtcdGoodByeTimeout));
}

EtcdRegistration::State EtcdRegistration::state() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

void EtcdRegistration::Run() {
  absl::Duration retry = limits::kEtcdRetryMin;
  for (;;) {
    const absl::Status status = Keep();
    Note(status);
    const absl::Duration wait = status.ok() ? options_.ttl / 3 : retry;
    retry = status.ok() ? limits::kEtcdRetryMin : std::min(retry * 2, limits::kEtcdRetryMax);
    if (WaitToEnd(wait)) break;
  }
  bool leaving = false;
  {
    absl::MutexLock lock(&mu_);
    leaving = leaving_;
  }
  if (leaving && lease_ != EtcdLease::kNone) Write(true).IgnoreError();
  absl::MutexLock lock(&mu_);
  ended_ = true;
}

absl::Status EtcdRegistration::Keep() {
  if (lease_ != EtcdLease::kNone) {
    const absl::Status kept = client_->KeepAlive(lease_);
    if (!kept.ok() && !absl::IsNotFound(kept)) return kept;
    if (!kept.ok()) lease_ = EtcdLease::kNone;
  }
  if (lease_ == EtcdLease::kNone) {
    REPRISE_ASSIGN_OR_RETURN(lease_, client_->Grant(options_.ttl));
  }
  return Write(false);
}

absl::Status EtcdRegistration::Write(bool leaving) {
  REPRISE_ASSIGN_OR_RETURN(const std::optional<EtcdEntry> found, client_->Get(key_));
  EtcdEntry entry{.key = key_,
                  .value = ToRecord({.member = options_.self, .leaving = leaving}),
                  .lease = lease_};
  if (found.has_value()) {
    const absl::StatusOr<MemberRecord> other = ParseRecord(options_.self.id.name, found->value);
    // What nobody can read nobody misses.
    if (other.ok() && !other->leaving && other->member.address != options_.self.address) {
      return Refusal(
          absl::StatusCode::kAlreadyExists, "MEMBER_ID_TAKEN",
          absl::StrCat("shard ", options_.self.id.name, " is registered at ", other->member.address,
                       " and not here, ", options_.self.address, ": until that ends, which takes ",
                       absl::FormatDuration(options_.ttl),
                       " if nobody is there, this shard is no member; give each shard "
                       "its own --id"));
    }
    if (found->value == entry.value && found->lease == lease_) return absl::OkStatus();
    entry.mod_revision = found->mod_revision;
  }
  REPRISE_ASSIGN_OR_RETURN(const bool written, client_->Put(entry));
  if (written) return absl::OkStatus();
  return Refusal(absl::StatusCode::kAborted, "MEMBER_ENTRY_CHANGED",
                 absl::StrCat("the entry ", key_, " was changed at the same moment: trying again"));
}

void EtcdRegistration::Note(const absl::Status& status) {
  std::string line;
  {
    absl::MutexLock lock(&mu_);
    if (status.ok() && !registered_) {
      line = absl::StrCat("members: registered as ", options_.self.id.name, " at ",
                          options_.self.address);
    } else if (!status.ok() && status.message() != state_.trouble) {
      line = absl::StrCat("members: not registered: ", status.message());
    }
    registered_ = status.ok();
    if (status.ok()) {
      state_ = {};
    } else {
      state_ = {.trouble = std::string(status.message()),
                .troubled_since = std::min(state_.troubled_since, MonotonicClock().Now())};
    }
  }
  if (!line.empty() && options_.log) options_.log(line);
}

bool EtcdRegistration::WaitToEnd(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithTimeout(absl::Condition(&ending_), timeout);
}

}  // namespace reprise::cluster
