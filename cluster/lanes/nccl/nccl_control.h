// What the two ends of a link tell each other beside it, over an authenticated channel that is
// somebody else's: the caller's lane speaks through an NcclControl, the shard's NcclHost answers.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

using NcclLinkId = StrongId<struct NcclLinkIdTag, uint64_t>;  // random, one per communicator

// The caller is rank 0 and made `id`; the shard joins as rank 1.
struct NcclConnectCall {
  NcclLinkId link;
  ncclUniqueId id{};
};

// The next group of the link: leased blocks, which the shard sends, or reserved ones, which it
// receives.
struct NcclOpenCall {
  NcclLinkId link;
  uint64_t sequence = 0;  // 1 for a link's first, and one more for each next, refused ones included
  LeaseId lease;          // of a read
  uint32_t first = 0;     // of a read
  ReservationId reservation;     // of a write
  std::vector<uint32_t> blocks;  // of a write: the key indexes; of a read: empty
  uint32_t count = 0;            // blocks of the group
  uint64_t block_bytes = 0;
  bool writes() const { return static_cast<bool>(reservation); }
};

struct NcclOpened {
  uint32_t count = 0;  // blocks that the shard takes part with: all of a read or none, the first so
                       // many of a write
  absl::Status status;  // why not more
};

// The reason of a shard's refusal that came before it looked at the call: nothing of it was done.
inline constexpr char kNcclCallsRefusal[] = "NCCL_CALLS";
// That of one that does not know the link, or not any more.
inline constexpr char kNcclLinkUnknown[] = "LINK_UNKNOWN";

class NcclControl {
 public:
  virtual ~NcclControl() = default;
  // The shard starts to connect. Whatever went wrong is a Status.
  virtual absl::Status Connect(const NcclConnectCall& call, MonotonicDeadline deadline) = 0;
  // The shard queues its half of the group. A Status means that the shard may or may not have
  // queued it, but for kNcclCallsRefusal, with which the group's number is still free.
  virtual absl::StatusOr<NcclOpened> Open(const NcclOpenCall& call, MonotonicDeadline deadline) = 0;
  // Waits for the shard's half of a write and marks its blocks as written.
  virtual absl::Status Finish(NcclLinkId link, uint64_t sequence, MonotonicDeadline deadline) = 0;
  // The caller's half is broken or closed: the shard need not wait for its own deadline. Returns at
  // once.
  virtual void Hangup(NcclLinkId link) = 0;
  // The verbs above but Hangup are of no use any more: those under way end now, and so do later
  // ones. Returns at once.
  virtual void Interrupt() = 0;
};

}  // namespace reprise::lanes
