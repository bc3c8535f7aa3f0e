#include "client/cpp/executor.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::client {

Executor::Executor(size_t threads, size_t queue_jobs_max) : queue_jobs_max_(queue_jobs_max) {
  for (size_t i = 0; i < std::max<size_t>(threads, 1); ++i)
    threads_.emplace_back([this] { Work(); });
  threads_.emplace_back([this] { ExpireQueued(); });
}

Executor::~Executor() {
  Stop();
}

absl::Status Executor::Submit(Job job) {
  absl::MutexLock lock(&mu_);
  if (closed_) return absl::CancelledError("the client is closed");
  if (queue_.size() >= queue_jobs_max_) {
    return Refusal(absl::StatusCode::kResourceExhausted, "CLIENT_QUEUE_FULL",
                   "too many operations wait in this client: take results before starting more, or "
                   "give the client more threads");
  }
  // A job that a thread is free for needs nobody to see to its deadline.
  sooner_ = sooner_ || (queue_.size() >= idle_ && job.deadline < wakes_at_);
  queue_.push_back(std::move(job));
  return absl::OkStatus();
}

void Executor::Stop() {
  std::deque<Job> dropped;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    dropped.swap(queue_);
  }
  for (Job& job : dropped) job.drop(absl::CancelledError("the client was closed"));
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void Executor::Work() {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mu_);
      ++idle_;
      mu_.Await(absl::Condition(
          +[](Executor* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mu_) {
            return self->closed_ || !self->queue_.empty();
          },
          this));
      --idle_;
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job.run();
  }
}

void Executor::ExpireQueued() {
  const auto earliest = [](const Job& a, const Job& b) { return a.deadline < b.deadline; };
  while (true) {
    Job late;
    {
      absl::MutexLock lock(&mu_);
      if (closed_) return;
      const auto next = std::min_element(queue_.begin(), queue_.end(), earliest);
      const absl::Time now = absl::Now();
      if (next == queue_.end() || next->deadline > now) {
        wakes_at_ = next == queue_.end() ? absl::InfiniteFuture() : next->deadline;
        sooner_ = false;
        mu_.AwaitWithDeadline(absl::Condition(
                                  +[](Executor* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mu_) {
                                    return self->closed_ || self->sooner_;
                                  },
                                  this),
                              wakes_at_);
        continue;
      }
      late = std::move(*next);
      queue_.erase(next);
    }
    late.drop(absl::DeadlineExceededError("the deadline passed before a client thread was free"));
  }
}

void Executor::RunAll(std::vector<std::function<void()>> tasks) {
  if (tasks.empty()) return;
  // Shared with helpers that may look at it after this call has returned.
  struct Shared {
    std::vector<std::function<void()>> tasks;
    std::atomic<size_t> next{0};
    absl::Mutex mu;
    size_t finished ABSL_GUARDED_BY(mu) = 0;

    void Help() {
      for (size_t i = next.fetch_add(1); i < tasks.size(); i = next.fetch_add(1)) {
        tasks[i]();
        absl::MutexLock lock(&mu);
        ++finished;
      }
    }
    bool Finished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return finished == tasks.size(); }
  };
  auto shared = std::make_shared<Shared>();
  shared->tasks = std::move(tasks);
  // Helpers that nobody is free to run now would only fill the queue.
  size_t helpers = 0;
  {
    absl::MutexLock lock(&mu_);
    const size_t free = idle_ > queue_.size() ? idle_ - queue_.size() : 0;
    helpers = std::min(free, shared->tasks.size() - 1);
  }
  for (size_t i = 0; i < helpers; ++i) {
    Job helper{absl::InfiniteFuture(), [shared] { shared->Help(); }, [](const absl::Status&) {}};
    if (!Submit(std::move(helper)).ok()) break;
  }
  shared->Help();
  absl::MutexLock lock(&shared->mu);
  shared->mu.Await(absl::Condition(shared.get(), &Shared::Finished));
}

}  // namespace reprise::client
