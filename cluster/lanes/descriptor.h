// A file descriptor with an owner, and waiting for one.
//
// Thread safety: as an int; Wait may be called from any thread.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cluster/lanes/monotonic_deadline.h"

namespace reprise::lanes {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { Close(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void Close();

  // Nothing has arrived, and the peer has not closed.
  bool Quiet() const;
  // Until poll(2) reports one of `events` or an error. DEADLINE_EXCEEDED; UNAVAILABLE (LANE_DOWN)
  // when it cannot wait. `lane` begins the sentences.
  absl::Status Wait(short events, MonotonicDeadline deadline, absl::string_view lane) const;

 private:
  int fd_ = -1;
};

// UNAVAILABLE (LANE_DOWN) with what errno says: "`lane`: `what`: ...".
absl::Status ErrnoDown(absl::string_view lane, absl::string_view what);
// The last call would have had to wait.
bool WouldBlock();

}  // namespace reprise::lanes
