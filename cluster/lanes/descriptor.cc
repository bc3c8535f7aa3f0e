#include "cluster/lanes/descriptor.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"

namespace reprise::lanes {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool Descriptor::Quiet() const {
  pollfd state{fd_, POLLIN, 0};
  const int ready = ::poll(&state, 1, 0);
  // A signal may come whenever it likes, and says nothing of the socket.
  return ready == 0 || (ready < 0 && errno == EINTR);
}

absl::Status Descriptor::Wait(short events, MonotonicDeadline deadline,
                              absl::string_view lane) const {
  while (true) {
    const absl::Duration left = deadline.left();
    if (left <= absl::ZeroDuration())
      return absl::DeadlineExceededError(absl::StrCat(lane, ": the deadline is over"));
    pollfd waiting{fd_, events, 0};
    const auto wait = absl::ToTimespec(std::min(left, limits::kPollMax));
    const int ready = ::ppoll(&waiting, 1, &wait, nullptr);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoDown(lane, "poll");
  }
}

absl::Status ErrnoDown(absl::string_view lane, absl::string_view what) {
  return LaneDown(absl::StrCat(lane, ": ", what, ": ", std::strerror(errno)));
}

bool WouldBlock() {
  return errno == EAGAIN || errno == EWOULDBLOCK;
}

}  // namespace reprise::lanes
