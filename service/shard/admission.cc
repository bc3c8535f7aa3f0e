#include "service/shard/admission.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::shard {

std::shared_ptr<Admission> Admission::Create(AdmissionLimits limits) {
  return std::shared_ptr<Admission>(new Admission(limits));
}

Admission::Budget Admission::BudgetOf(WorkKind kind) const {
  const size_t calls = Count(WorkKind::kReadCall) + Count(WorkKind::kWriteCall);
  const size_t streams = Count(WorkKind::kReadStream) + Count(WorkKind::kWriteStream);
  const size_t tcp_calls = Count(WorkKind::kTcpRead) + Count(WorkKind::kTcpWrite);
  switch (kind) {
    case WorkKind::kReadCall:
      return {calls, limits_.calls_max, "calls", ""};
    case WorkKind::kWriteCall:
      return {calls, limits_.write_calls_max, "calls", " for a write"};
    case WorkKind::kReadStream:
      return {streams, limits_.streams_max, "streams", ""};
    case WorkKind::kWriteStream:
      return {streams, limits_.write_streams_max, "streams", " for a write"};
    case WorkKind::kTcpRead:
      return {tcp_calls, limits_.tcp_calls_max, "calls of its tcp lane", ""};
    case WorkKind::kTcpWrite:
      return {tcp_calls, limits_.tcp_writes_max, "calls of its tcp lane", " for a write"};
    case WorkKind::kDiskRead:
      break;
  }
  return {Count(WorkKind::kDiskRead), limits_.disk_reads_max, "reads of its disk", ""};
}

absl::StatusOr<Admission::Ticket> Admission::Admit(WorkKind kind, absl::Duration patience) {
  {
    absl::MutexLock lock(&mu_);
    const auto room = [this, kind]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      const Budget budget = BudgetOf(kind);
      return budget.now < budget.most;
    };
    if (!mu_.AwaitWithTimeout(absl::Condition(&room), patience)) {
      const Budget budget = BudgetOf(kind);
      ++refused_;
      return Refusal(absl::StatusCode::kResourceExhausted, "OVERLOAD",
                     absl::StrCat("the shard has ", budget.now, " ", budget.work,
                                  " in flight and takes at most ", budget.most, budget.for_what,
                                  ": try again after ", absl::FormatDuration(limits::kRetryAfter)));
    }
    ++counts_[static_cast<size_t>(kind)];
  }
  // Owns nothing but the count; the pointer itself is never read.
  return Ticket(this, [self = shared_from_this(), kind](const void*) { self->Leave(kind); });
}

void Admission::Leave(WorkKind kind) {
  absl::MutexLock lock(&mu_);
  --counts_[static_cast<size_t>(kind)];
}

size_t Admission::Total() const {
  return std::accumulate(counts_.begin(), counts_.end(), size_t{0});
}

size_t Admission::in_flight() const {
  absl::MutexLock lock(&mu_);
  return Total();
}

uint64_t Admission::refused() const {
  absl::MutexLock lock(&mu_);
  return refused_;
}

bool Admission::AwaitIdle(absl::Duration timeout) const {
  absl::MutexLock lock(&mu_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return Total() == 0; };
  return mu_.AwaitWithTimeout(absl::Condition(&idle), timeout);
}

}  // namespace reprise::shard
