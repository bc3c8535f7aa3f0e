#include "cluster/lanes/tcp/socket_wait.h"

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"

namespace reprise::lanes::tcp {
namespace {

constexpr char kLane[] = "tcp lane";

}  // namespace

absl::Status SocketWait::Check() const {
  if (!deadline.over()) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(kLane, ": the deadline is over"));
}

absl::Status SocketWait::For(const Descriptor& socket, short events) const {
  const absl::Status status = socket.Wait(events, deadline.OrAfter(stall), kLane);
  if (!absl::IsDeadlineExceeded(status) || deadline.over()) return status;
  return LaneDown(absl::StrCat(kLane, ": nothing moved for ",
                               absl::FormatDuration(absl::Trunc(stall, absl::Milliseconds(1)))));
}

}  // namespace reprise::lanes::tcp
