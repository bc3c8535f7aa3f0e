// The shard's end of all its NCCL links: joins communicators that attached callers made, sends
// leased blocks straight from their slots and receives reserved ones straight into theirs, in the
// order of each link's sequence numbers.
//
// Invariants: a link belongs to one attachment and ends with it; links are bounded, those of one
// attachment more narrowly, and so are the groups that wait on one; slots stay
// pinned until NCCL has let go of them, however the transfer ended; a sequence number that is not
// the next one breaks the link. Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/nccl/nccl_control.h"
#include "cluster/lanes/nccl/nccl_link.h"

namespace reprise::lanes {

class NcclHost {
 public:
  struct Options {
    LaneHost* host = nullptr;  // REQUIRES: outlives this
    std::shared_ptr<const NcclLibrary> nccl;
    std::shared_ptr<NcclDevice> device;
    LinkState::Options state;
    absl::Duration stop_grace = limits::kNcclStopGrace;
  };

  explicit NcclHost(Options options);
  // Closes all links.
  ~NcclHost();

  // The verbs of NcclControl, for a caller that was authenticated as `attachment`.
  // RESOURCE_EXHAUSTED when there are too many links, ALREADY_EXISTS when the link is known.
  absl::Status Connect(AttachmentId attachment, const NcclConnectCall& call);
  // NOT_FOUND when the link is not this attachment's, FAILED_PRECONDITION when it is not up.
  absl::StatusOr<NcclOpened> Open(AttachmentId attachment, const NcclOpenCall& call,
                                  MonotonicDeadline deadline);
  absl::Status Finish(AttachmentId attachment, NcclLinkId link, uint64_t sequence,
                      MonotonicDeadline deadline);
  void Hangup(AttachmentId attachment, NcclLinkId link);

  // The attach stream broke: its links are aborted.
  void EndAttachment(AttachmentId attachment);

  size_t links() const;

  // Since the start; what NCCL has finished.
  struct Moved {
    uint64_t blocks_sent = 0;
    uint64_t bytes_sent = 0;
    uint64_t blocks_received = 0;
    uint64_t bytes_received = 0;
    uint64_t link_failures = 0;  // links that ended otherwise than closed or unused
  };
  Moved moved() const;

 private:
  struct Served;
  struct Pins;
  struct Counts {
    std::atomic<uint64_t> blocks_sent{0}, bytes_sent{0}, blocks_received{0}, bytes_received{0},
        link_failures{0};
  };

  std::shared_ptr<Served> Find(AttachmentId attachment, NcclLinkId link) const;
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status HasRoomFor(AttachmentId attachment) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<NcclOpened> OpenNext(Served& served, const NcclOpenCall& call,
                                      MonotonicDeadline deadline);
  absl::Status OpenRead(Served& served, const NcclOpenCall& call, Pins& pins, NcclGroup& group);
  absl::Status OpenWrite(Served& served, const NcclOpenCall& call, Pins& pins, NcclGroup& group);

  const Options options_;
  const std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();  // the links' threads add
  mutable absl::Mutex mu_;
  absl::flat_hash_map<NcclLinkId, std::shared_ptr<Served>> links_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes
