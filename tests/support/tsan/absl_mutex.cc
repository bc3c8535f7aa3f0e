// Tells ThreadSanitizer what absl's locks order. The distribution's Abseil is built without TSan,
// so that TSan sees nothing of them and calls everything that they guard a race. The linker sends
// our calls here (--wrap, see absl_mutex.cmake); each goes on to the real function and says what it
// has acquired or released.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

namespace {

// Evaluated by whichever thread holds the lock, somewhere inside of Abseil.
struct Watched {
  Mutex* mu;
  const Condition* condition;
};

bool Evaluate(Watched* watched) {
  __tsan_acquire(watched->mu);
  const bool met = watched->condition->Eval();
  __tsan_release(watched->mu);
  return met;
}

}  // namespace

extern "C" {

// Two places inside of Abseil that --wrap does not reach: the reference count of a Status, half of
// which is inline, and the graph with which it looks for deadlocks.
const char* __tsan_default_suppressions() {
  return "race:Unref\nrace:GraphCycles\n";
}

// Taken: what its last holder did has happened before.
#define REPRISE_TAKES(symbol)       \
  void __real_##symbol(Mutex* mu);  \
  void __wrap_##symbol(Mutex* mu) { \
    __real_##symbol(mu);            \
    __tsan_acquire(mu);             \
  }
#define REPRISE_TRIES(symbol)               \
  bool __real_##symbol(Mutex* mu);          \
  bool __wrap_##symbol(Mutex* mu) {         \
    const bool taken = __real_##symbol(mu); \
    if (taken) __tsan_acquire(mu);          \
    return taken;                           \
  }
#define REPRISE_GIVES(symbol)       \
  void __real_##symbol(Mutex* mu);  \
  void __wrap_##symbol(Mutex* mu) { \
    __tsan_release(mu);             \
    __real_##symbol(mu);            \
  }
// Waits for a condition, which other threads evaluate meanwhile: they have to see how it was made.
#define REPRISE_WAITS(symbol)                                   \
  void __real_##symbol(Mutex* mu, const Condition& condition);  \
  void __wrap_##symbol(Mutex* mu, const Condition& condition) { \
    Watched watched{mu, &condition};                            \
    __tsan_release(mu);                                         \
    __real_##symbol(mu, Condition(Evaluate, &watched));         \
    __tsan_acquire(mu);                                         \
  }
#define REPRISE_WAITS_UNTIL(symbol, When)                                      \
  bool __real_##symbol(Mutex* mu, const Condition& condition, When when);      \
  bool __wrap_##symbol(Mutex* mu, const Condition& condition, When when) {     \
    Watched watched{mu, &condition};                                           \
    __tsan_release(mu);                                                        \
    const bool met = __real_##symbol(mu, Condition(Evaluate, &watched), when); \
    __tsan_acquire(mu);                                                        \
    return met;                                                                \
  }
#define REPRISE_CONDVAR_WAITS_UNTIL(symbol, When)           \
  bool __real_##symbol(CondVar* cv, Mutex* mu, When when);  \
  bool __wrap_##symbol(CondVar* cv, Mutex* mu, When when) { \
    __tsan_release(mu);                                     \
    const bool over = __real_##symbol(cv, mu, when);        \
    __tsan_acquire(mu);                                     \
    return over;                                            \
  }

REPRISE_TAKES(_ZN4absl7debian35Mutex4LockEv)
REPRISE_TAKES(_ZN4absl7debian35Mutex10ReaderLockEv)
REPRISE_TRIES(_ZN4absl7debian35Mutex7TryLockEv)
REPRISE_TRIES(_ZN4absl7debian35Mutex13ReaderTryLockEv)
REPRISE_GIVES(_ZN4absl7debian35Mutex6UnlockEv)
REPRISE_GIVES(_ZN4absl7debian35Mutex12ReaderUnlockEv)
REPRISE_WAITS(_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE)
REPRISE_WAITS(_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE)
REPRISE_WAITS(_ZN4absl7debian35Mutex14ReaderLockWhenERKNS0_9ConditionE)
REPRISE_WAITS_UNTIL(_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE,
                    Duration)
REPRISE_WAITS_UNTIL(_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, Time)
REPRISE_WAITS_UNTIL(_ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE,
                    Duration)
REPRISE_WAITS_UNTIL(_ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE, Time)
REPRISE_CONDVAR_WAITS_UNTIL(_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE,
                            Duration)
REPRISE_CONDVAR_WAITS_UNTIL(_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, Time)

void __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(CondVar* cv, Mutex* mu);
void __wrap__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(CondVar* cv, Mutex* mu) {
  __tsan_release(mu);
  __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(cv, mu);
  __tsan_acquire(mu);
}

void __real__ZN4absl7debian312Notification6NotifyEv(Notification* n);
void __wrap__ZN4absl7debian312Notification6NotifyEv(Notification* n) {
  __tsan_release(n);
  __real__ZN4absl7debian312Notification6NotifyEv(n);
}
void __real__ZNK4absl7debian312Notification19WaitForNotificationEv(const Notification* n);
void __wrap__ZNK4absl7debian312Notification19WaitForNotificationEv(const Notification* n) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(n);
  __tsan_acquire(const_cast<Notification*>(n));
}
bool __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const Notification* n, Duration when);
bool __wrap__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const Notification* n, Duration when) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(n,
                                                                                            when);
  if (notified) __tsan_acquire(const_cast<Notification*>(n));
  return notified;
}

}  // extern "C"
