// A disk that is kept over restarts: its journal follows what is stored there, a moment late, and
// is written anew at the start, at the end, and when it is mostly of the past. A thread of its own
// does so (shard_engine_journal.cc): a change costs a note of its slot, and no queue can grow.

#include <pthread.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

absl::Status ShardEngineImpl::StartKeeping() {
  REPRISE_CHECK(kept_ != nullptr);
  Restore(kept_->TakeFound());
  {
    absl::MutexLock lock(&mu_);
    following_ = true;
  }
  // What the last process wrote says that it ended in order. That is over.
  REPRISE_RETURN_IF_ERROR(RewriteJournal(/*ending=*/false));
  keeper_ = std::thread([this] { KeepLoop(); });
  absl::MutexLock lock(&mu_);
  if (!to_scrub_.empty() && options_.background_scrub) {
    scrubber_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "reprise-scrub");
      Scrub();
    });
  }
  return absl::OkStatus();
}

// What is stored at `slot` is not what it was.
void ShardEngineImpl::NoteKept(SlotRef slot) {
  if (!following_ || pool_->LevelOf(slot) != pool_->last()) return;
  if (unsaid_.empty()) keep_cv_.SignalAll();
  unsaid_.insert(slot);
  ++notes_;
}

// Until the disk has what was noted as far as `note`. UNAVAILABLE when that takes longer than
// kJournalPatience.
absl::Status ShardEngineImpl::AwaitJournal(uint64_t note) {
  const absl::Time deadline = absl::Now() + limits::kJournalPatience;
  absl::MutexLock lock(&mu_);
  while (said_notes_ < note && following_ && !stopping_) {
    ++hurried_;
    keep_cv_.SignalAll();
    const bool late = said_cv_.WaitWithDeadline(&mu_, deadline);
    --hurried_;
    if (!late) continue;
    return Refusal(
        absl::StatusCode::kUnavailable, "DISK_SLOW",
        absl::StrCat("it is done, and the disk has not noted so within kJournalPatience = ",
                     absl::FormatDuration(limits::kJournalPatience),
                     ": a crash now could undo it; ask again"));
  }
  return absl::OkStatus();
}

void ShardEngineImpl::KeepLoop() {
  ::pthread_setname_np(::pthread_self(), "reprise-keep");
  while (true) {
    bool hurry = false;
    {
      absl::MutexLock lock(&mu_);
      while (unsaid_.empty() && hurried_ == 0 && !stopping_) keep_cv_.Wait(&mu_);
      const absl::Time due = absl::Now() + limits::kJournalInterval;
      while (!stopping_ && hurried_ == 0 && !keep_cv_.WaitWithDeadline(&mu_, due)) {
      }
      if (stopping_) return;
      hurry = hurried_ > 0;
    }
    absl::Status kept = SayUnsaid(hurry);
    if (!kept.ok() || pool_->lost(pool_->last())) return StopKeeping(kept);
    if (!JournalIsOfThePast()) continue;
    kept = RewriteJournal(/*ending=*/false);
    if (journal_ == nullptr) return StopKeeping(kept);
    // The one before is as good as ever, and grows. Another time, then.
    if (!kept.ok()) rewritten_bytes_ = journal_->bytes();
  }
}

// Nothing that the journal says may be true any more.
void ShardEngineImpl::StopKeeping(const absl::Status& why) {
  journal_ = nullptr;
  kept_->Forget();
  const std::string sentence =
      why.ok() ? "the disk is lost" : absl::StrCat("its journal failed: ", why.message());
  {
    absl::MutexLock lock(&mu_);
    kept_use_.why_not_kept = sentence;
    following_ = false;
    unsaid_.clear();
    said_cv_.SignalAll();
  }
  if (options_.log) options_.log(absl::StrCat("disk: the next process finds nothing: ", sentence));
}

absl::Status ShardEngineImpl::Close() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    evict_cv_.Signal();
    keep_cv_.SignalAll();
    said_cv_.SignalAll();
  }
  for (std::thread* const thread : {&evictor_, &keeper_, &scrubber_}) {
    if (thread->joinable()) thread->join();
  }
  if (journal_ == nullptr) return absl::OkStatus();
  const absl::Status ended = EndJournal();
  if (ended.ok()) {
    journal_ = nullptr;
  } else {
    StopKeeping(ended);
  }
  return ended;
}

// In the order of use and with claims where there is room for a new one. What is not checked yet is
// not said to be in order.
absl::Status ShardEngineImpl::EndJournal() {
  if (pool_->lost(pool_->last())) return absl::InternalError("the disk is lost");
  const absl::Status rewritten = RewriteJournal(/*ending=*/true);
  if (journal_ == nullptr) return rewritten;
  if (!rewritten.ok()) REPRISE_RETURN_IF_ERROR(SayUnsaid(/*sync=*/true));
  REPRISE_RETURN_IF_ERROR(pool_->Sync(pool_->last()));
  bool checked = false;
  {
    absl::MutexLock lock(&mu_);
    checked = to_scrub_.empty();
  }
  if (checked) REPRISE_RETURN_IF_ERROR(journal_->Append({.closed = true}));
  return journal_->Sync();
}

}  // namespace reprise::shard
