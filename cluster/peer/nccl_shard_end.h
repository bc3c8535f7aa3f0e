// A shard's end of the NCCL lane: serves its links to callers that are attached. A header without
// NCCL's, so that a shard is one program with and without it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server_context.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cluster/lanes/lane.h"
#include "cluster/link/nccl_context.h"
#include "proto/types/ids.h"

namespace reprise::cluster {

// OK when the caller behind `context` owns the attachment, else what it is told.
using AuthorizeAttachment =
    std::function<absl::Status(const grpc::ServerContextBase& context, AttachmentId attachment)>;

class NcclShardEnd {
 public:
  // REQUIRES: `host` outlives this.
  static std::unique_ptr<NcclShardEnd> Create(const NcclContext& nccl, lanes::LaneHost* host);
  // Closes all links.
  virtual ~NcclShardEnd() = default;

  // To be registered with the shard's server. REQUIRES: this outlives it.
  virtual std::unique_ptr<grpc::Service> MakeService(AuthorizeAttachment authorize) = 0;
  // The attachment is over: its links are aborted. Does not block.
  virtual void EndAttachment(AttachmentId attachment) = 0;

  // What went by NCCL since the start, and the links now.
  struct Use {
    uint64_t blocks_read = 0;  // by callers
    uint64_t bytes_read = 0;
    uint64_t blocks_written = 0;
    uint64_t bytes_written = 0;
    uint64_t links = 0;
    uint64_t link_failures = 0;
  };
  virtual Use use() const = 0;
};

}  // namespace reprise::cluster
