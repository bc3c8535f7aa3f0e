#include "service/shard/admission.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::shard {

std::shared_ptr<Admission> Admission::Create(AdmissionLimits limits) {
  return std::shared_ptr<Admission>(new Admission(limits));
}

absl::StatusOr<Admission::Ticket> Admission::Admit(WorkKind kind) {
  const bool stream = kind == WorkKind::kReadStream || kind == WorkKind::kWriteStream;
  const bool write = kind == WorkKind::kWriteCall || kind == WorkKind::kWriteStream;
  const size_t most = stream ? (write ? limits_.write_streams_max : limits_.streams_max)
                             : (write ? limits_.write_calls_max : limits_.calls_max);
  {
    absl::MutexLock lock(&mu_);
    const size_t now = stream ? Count(WorkKind::kReadStream) + Count(WorkKind::kWriteStream)
                              : Count(WorkKind::kReadCall) + Count(WorkKind::kWriteCall);
    if (now >= most) {
      ++refused_;
      return Refusal(
          absl::StatusCode::kResourceExhausted, "OVERLOAD",
          absl::StrCat("the shard has ", now, stream ? " streams" : " calls",
                       " in flight and takes at most ", most, write ? " for a write" : "",
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
