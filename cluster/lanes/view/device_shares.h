// Which attachments were told how to map which extents in device memory, and when that is over.
//
// Device memory cannot be taken from under a mapping, so a share is over only when nobody can have
// it any more. Every process that maps an extent keeps a tether, one end of a pipe, for as long;
// the kernel closes it when the process dies, however it dies. An attachment's shares are over when
// the attachment has ended, no connection of it is left that could be told of another, and the last
// tether is closed. A process that lives and does not unmap keeps its extents; nobody waits for it.
//
// Invariants: an extent is shared with an attachment once; Unshared is said once for an attachment
// that shares were made for, and none is made afterwards.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/view/extent_exporter.h"
#include "cluster/lanes/view/view_socket.h"

namespace reprise::lanes::view {

class DeviceShares {
 public:
  // REQUIRES: `exporter` outlives this.
  explicit DeviceShares(ExtentExporter& exporter) : exporter_(exporter) {}

  struct Grant {
    DeviceHandle handle;
    Descriptor tether;  // for the process that maps it
  };
  // NOT_FOUND when the attachment is over; LANE_DOWN when the exporter refuses. REQUIRES: as
  // ExtentExporter::Share.
  absl::StatusOr<Grant> Share(const ExtentView& extent, AttachmentId attachment);

  // The attachment is over.
  void End(AttachmentId attachment);
  // Says Unshared where it is time. `connected`: whether a connection of the attachment is left.
  void Sweep(absl::FunctionRef<bool(AttachmentId)> connected);
  // What becomes readable when the last tether of an ended attachment is closed; valid until the
  // next Sweep.
  std::vector<int> Awaited() const;

 private:
  struct Shared {
    Descriptor tether;   // our copy, while connections may ask for more; none: no more are made
    Descriptor watched;  // hangs up when no copy is left
    absl::flat_hash_map<uint64_t, DeviceHandle> extents;  // by id
  };

  ExtentExporter& exporter_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<AttachmentId, Shared> shared_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<AttachmentId> ended_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes::view
