// One process's NCCL: the library, the GPU whose memory blocks move from and to, and a cap on the
// links that it makes. A shard has one, and so has a client that runs beside a GPU; without one, or
// in a build without NCCL's headers, every lane is another one.
//
// Invariants: opening one sets NCCL_RAS_ENABLE=0 in the environment unless it is set: NCCL's own
// status service would listen on a port that all processes of a machine want. Which network
// interface NCCL uses is NCCL_SOCKET_IFNAME's to say.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/lanes/linked_lane.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

namespace reprise::lanes {
struct NcclParts;
}

namespace reprise::cluster {

struct NcclOptions {
  int gpu = 0;          // index of the device in this process
  std::string library;  // path of libnccl.so.2; empty: $REPRISE_NCCL_LIBRARY, else the loader's
  size_t links_max = limits::kNcclLinksMax;
  // How long a link may be in the making, and unused.
  absl::Duration connect_timeout = limits::kNcclConnectTimeout;
  absl::Duration idle_max = limits::kNcclIdleMax;
};

class NcclContext {
 public:
  // UNAVAILABLE with a sentence for people: there is no such GPU, no library, or this build has no
  // NCCL lane.
  static absl::StatusOr<std::shared_ptr<const NcclContext>> Open(NcclOptions options);
  // The version of the library that Open would load, with a GPU and without: "2.28.9". UNAVAILABLE
  // as there.
  static absl::StatusOr<std::string> LibraryVersion();
  // The same of parts that are there already; only where NCCL is built in.
  static std::shared_ptr<const NcclContext> Of(NcclOptions options, lanes::NcclParts parts);
  virtual ~NcclContext() = default;

  // The caller's end of a lane to the shard behind `channel`. Its link is made when it is used.
  virtual std::unique_ptr<lanes::LinkedLane> MakeLane(const std::shared_ptr<grpc::Channel>& channel,
                                                      AttachmentId attachment) const = 0;
  virtual const lanes::NcclParts& parts() const = 0;
  virtual const NcclOptions& options() const = 0;
  virtual size_t links() const = 0;             // that lanes made and hold now
  virtual uint64_t link_failures() const = 0;   // of those, since the start
  virtual std::string Description() const = 0;  // "NCCL 2.28.9 on GPU 0"
};

}  // namespace reprise::cluster
