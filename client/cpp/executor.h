// The client's threads and its bounded queue. What waits too long for a thread is dropped at its
// deadline, so that a busy client answers late calls instead of holding them.
//
// Invariants: every submitted job gets exactly one of `run` and `drop`; RunAll never waits for a
// free thread, because the caller does what no thread took. Thread safety: all methods may be
// called from any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace reprise::client {

class Executor {
 public:
  struct Job {
    absl::Time deadline;  // of its start
    std::function<void()> run;
    std::function<void(const absl::Status&)> drop;  // DEADLINE_EXCEEDED, or CANCELLED at the end
  };

  Executor(size_t threads, size_t queue_jobs_max);
  ~Executor();  // stops
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // RESOURCE_EXHAUSTED when the queue is full, CANCELLED when the executor is at its end; the job
  // is then neither run nor dropped.
  absl::Status Submit(Job job);

  // Runs all tasks, on this thread and on such as are free now, and returns when all are done.
  void RunAll(std::vector<std::function<void()>> tasks);

  // Drops what is queued, takes nothing more, and returns when nothing runs. Not from a job.
  void Stop();

 private:
  void Work();
  void ExpireQueued();

  const size_t queue_jobs_max_;
  absl::Mutex mu_;
  std::deque<Job> queue_ ABSL_GUARDED_BY(mu_);
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;  // threads that wait for a job
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  // When the thread that drops late jobs looks again, and whether it is to look before.
  absl::Time wakes_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool sooner_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace reprise::client
