// How much work a shard takes on at once. What does not fit is refused at once, with a hint when to
// try again, while what was admitted runs at full speed. Overload refuses writes before reads: a
// read that is refused is a recompute now, a write that is refused may be one later.
//
// Invariants: the work in flight never exceeds the limits; of one budget, writes may fill only a
// part.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::shard {

// kDiskRead: a reading stream or tcp call some of whose blocks are on the disk; it has a ticket of
// each kind.
enum class WorkKind : uint8_t {
  kReadCall,
  kWriteCall,
  kReadStream,
  kWriteStream,
  kDiskRead,
  kTcpRead,
  kTcpWrite
};

struct AdmissionLimits {
  size_t calls_max = limits::kUnaryCallsMax;  // reading and writing calls together
  size_t write_calls_max = limits::kUnaryWriteCallsMax;
  size_t streams_max = limits::kReadStreamsMax;  // reading and writing streams together
  size_t write_streams_max = limits::kWriteStreamsMax;
  size_t disk_reads_max = limits::kDiskReadsMax;
  size_t tcp_calls_max = limits::kTcpConnectionsMax;  // reading and writing ones together
  size_t tcp_writes_max = limits::kTcpWritesMax;
};

class Admission : public std::enable_shared_from_this<Admission> {
 public:
  static std::shared_ptr<Admission> Create(AdmissionLimits limits = {});

  // The work is in flight while the ticket or a copy of it lives.
  using Ticket = std::shared_ptr<const void>;

  // RESOURCE_EXHAUSTED (OVERLOAD) when the budget of this kind is spent, and stays so for
  // `patience`: of a caller whose thread has nothing else to do.
  absl::StatusOr<Ticket> Admit(WorkKind kind, absl::Duration patience = absl::ZeroDuration());

  size_t in_flight() const;
  uint64_t refused() const;
  // True once nothing is in flight; false when that did not come within `timeout`.
  bool AwaitIdle(absl::Duration timeout) const;

 private:
  explicit Admission(AdmissionLimits limits) : limits_(limits) {}
  struct Budget {
    size_t now = 0;
    size_t most = 0;
    const char* work = "";
    const char* for_what = "";
  };
  Budget BudgetOf(WorkKind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave(WorkKind kind);
  size_t Count(WorkKind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return counts_[static_cast<size_t>(kind)];
  }
  size_t Total() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AdmissionLimits limits_;
  mutable absl::Mutex mu_;
  std::array<size_t, 7> counts_ ABSL_GUARDED_BY(mu_) = {};  // by WorkKind
  uint64_t refused_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace reprise::shard
