#include "client/cpp/shard_set.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::client {

ShardSet::ShardSet(ShardSetOptions options)
    : options_(std::move(options)),
      clock_(options_.clock != nullptr ? *options_.clock : MonotonicClock()) {}

ShardSet::~ShardSet() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    for (auto& [address, entry] : entries_) threads.push_back(std::move(entry.thread));
  }
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
}

absl::StatusOr<std::shared_ptr<cluster::ShardLink>> ShardSet::Get(const std::string& address,
                                                                  absl::Time deadline) {
  std::shared_ptr<cluster::ShardLink> dead;  // closed after the lock is released
  absl::MutexLock lock(&mu_);
  Entry& entry = entries_[address];
  if (entry.link != nullptr && !entry.link->alive()) dead = std::exchange(entry.link, nullptr);
  ProbeThoseDue(clock_.Now());
  if (entry.breaker.state() != Breaker::State::kClosed) {
    return Refusal(absl::StatusCode::kUnavailable, "SHARD_OUT",
                   absl::StrCat("shard ", address,
                                " is left out for a while: ", entry.last_failure.message()));
  }
  if (entry.link != nullptr) return entry.link;
  const uint64_t attempt = entry.attempts;
  if (!entry.busy) StartProbe(address, entry);
  struct Waiting {
    const Entry& entry;
    uint64_t attempt;
  } waiting{entry, attempt};
  const bool tried = mu_.AwaitWithDeadline(
      absl::Condition(
          +[](Waiting* w) { return !w->entry.busy && w->entry.attempts > w->attempt; }, &waiting),
      deadline);
  if (!tried) {
    return absl::DeadlineExceededError(
        absl::StrCat("shard ", address, " was not attached in time"));
  }
  if (entry.link != nullptr) return entry.link;
  return entry.last_failure.ok()
             ? absl::UnavailableError(absl::StrCat("shard ", address, " is gone"))
             : entry.last_failure;
}

void ShardSet::ProbeThoseDue(absl::Time now) {
  if (now < next_look_) return;
  next_look_ = now + limits::kBackOffMax;
  for (auto& [address, entry] : entries_) {
    if (entry.breaker.state() == Breaker::State::kClosed || entry.busy) continue;
    if (entry.breaker.Allow(now)) StartProbe(address, entry);
  }
}

void ShardSet::StartProbe(const std::string& address, Entry& entry) {
  if (closed_) return;
  entry.busy = true;
  // The thread before has set `busy` to false as the last thing that it does under the lock.
  if (entry.thread.joinable()) entry.thread.join();
  entry.thread = std::thread([this, address, link = entry.link] { Probe(address, link); });
}

void ShardSet::Probe(const std::string& address, std::shared_ptr<cluster::ShardLink> link) {
  const absl::Time deadline = absl::Now() + limits::kConnectDeadline;
  absl::Status status;
  std::shared_ptr<cluster::ShardLink> fresh;
  if (link != nullptr) {
    // Any answer shows that the shard lives; the refusal of this empty question is one.
    status = link->Lookup(SpecHandle(), {}, deadline).status();
  } else {
    auto connected = options_.connect(
        {.address = address, .client_name = options_.client_name, .lanes = options_.lanes},
        deadline);
    status = connected.status();
    if (connected.ok()) fresh = reaper_.Own(*std::move(connected));
  }
  std::shared_ptr<cluster::ShardLink> old;  // closed after the lock is released
  absl::MutexLock lock(&mu_);
  Entry& entry = entries_[address];
  Verdict verdict = Judge(status, limits::kConnectDeadline);
  if (fresh != nullptr) {
    ++entry.connects;
    entry.shard_id = fresh->shard_id().name;
    old = std::exchange(entry.link, std::move(fresh));
  } else if (verdict != Verdict::kGood) {
    entry.last_failure = status;
    // A shard that one cannot attach to is of no use to anybody: out at once, not after three such
    // waits.
    verdict = Verdict::kHung;
  } else if (link == nullptr) {
    entry.last_failure = status;  // it refused to attach us: asked again after a while
    verdict = Verdict::kHung;
  }
  entry.breaker.Report(verdict, clock_.Now());
  ++entry.attempts;
  entry.busy = false;
}

void ShardSet::Report(const std::string& address, const std::shared_ptr<cluster::ShardLink>& link,
                      const absl::Status& status, absl::Duration budget) {
  std::shared_ptr<cluster::ShardLink> dropped;
  absl::MutexLock lock(&mu_);
  Entry& entry = entries_[address];
  if (entry.link != link) return;  // news of a link that was replaced meanwhile
  const Verdict verdict = Judge(status, budget);
  if (verdict == Verdict::kBad || verdict == Verdict::kHung) entry.last_failure = status;
  const bool forgotten = RefusalReason(status) == "ATTACHMENT_UNKNOWN";
  if (!link->alive() || forgotten) dropped = std::exchange(entry.link, nullptr);
  // A stream that broke is no reason to stay away: the next caller tries to attach and learns what
  // is true.
  if (dropped != nullptr && verdict == Verdict::kBad) return;
  entry.breaker.Report(verdict, clock_.Now());
}

bool ShardSet::Attached(const std::string& address) const {
  absl::MutexLock lock(&mu_);
  const auto at = entries_.find(address);
  return at != entries_.end() && at->second.breaker.state() == Breaker::State::kClosed &&
         at->second.link != nullptr && at->second.link->alive();
}

ShardId ShardSet::IdOf(const std::string& address) const {
  absl::MutexLock lock(&mu_);
  const auto at = entries_.find(address);
  return ShardId{at == entries_.end() ? "" : at->second.shard_id};
}

std::vector<ShardView> ShardSet::Views() const {
  absl::MutexLock lock(&mu_);
  std::vector<ShardView> views;
  for (const auto& [address, entry] : entries_) {
    const bool attached = entry.link != nullptr && entry.link->alive();
    views.push_back({.address = address,
                     .shard_id = entry.shard_id,
                     .attached = attached,
                     .draining = attached && entry.link->draining(),
                     .breaker = entry.breaker.state(),
                     .connects = entry.connects,
                     .breaker_opened = entry.breaker.opened()});
  }
  return views;
}

}  // namespace reprise::client
