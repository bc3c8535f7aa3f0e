#include "cluster/peer/nccl_shard_end.h"

#include <utility>

#include "cluster/lanes/nccl/nccl_host.h"
#include "cluster/lanes/nccl/nccl_parts.h"
#include "cluster/peer/nccl_peer_service.h"

namespace reprise::cluster {
namespace {

class HostedNccl final : public NcclShardEnd {
 public:
  HostedNccl(const NcclContext& nccl, lanes::LaneHost* host)
      : host_({.host = host,
               .nccl = nccl.parts().nccl,
               .device = nccl.parts().device,
               .state = {.connect_timeout = nccl.options().connect_timeout,
                         .idle_max = nccl.options().idle_max}}) {}

  std::unique_ptr<grpc::Service> MakeService(AuthorizeAttachment authorize) override {
    return std::make_unique<NcclPeerService>(&host_, std::move(authorize));
  }
  void EndAttachment(AttachmentId attachment) override { host_.EndAttachment(attachment); }
  Use use() const override {
    const lanes::NcclHost::Moved moved = host_.moved();
    return {.blocks_read = moved.blocks_sent,
            .bytes_read = moved.bytes_sent,
            .blocks_written = moved.blocks_received,
            .bytes_written = moved.bytes_received,
            .links = host_.links(),
            .link_failures = moved.link_failures};
  }

 private:
  lanes::NcclHost host_;
};

}  // namespace

std::unique_ptr<NcclShardEnd> NcclShardEnd::Create(const NcclContext& nccl, lanes::LaneHost* host) {
  return std::make_unique<HostedNccl>(nccl, host);
}

}  // namespace reprise::cluster
