// A real shard server that serves NCCL links over the fake libnccl: host memory passes for a GPU's.
//
// Thread safety: one thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "cluster/lanes/nccl/nccl_parts.h"
#include "cluster/link/nccl_context.h"
#include "cluster/peer/nccl_shard_end.h"
#include "tests/support/fake_nccl/fake_device.h"
#include "tests/support/forwarding_lane_host.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {

inline std::shared_ptr<const cluster::NcclContext> FakeNcclContext(size_t links_max = 8,
                                                                   int gpu = 0) {
  return cluster::NcclContext::Of(
      {.gpu = gpu, .links_max = links_max, .connect_timeout = absl::Seconds(20)},
      {.nccl = FakeNccl(),
       .device = std::make_shared<FakeDevice>(lanes::MemoryKind::kDevice, gpu),
       .cap = lanes::LinkCap::Create(links_max)});
}

// An engine whose slots pass for device memory, but one block of each lease when told so.
class DeviceSlots final : public ForwardingLaneHost {
 public:
  using ForwardingLaneHost::ForwardingLaneHost;
  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId attachment, LeaseId lease,
                                                           uint32_t first,
                                                           uint32_t blocks) override {
    auto opened = ForwardingLaneHost::OpenRead(attachment, lease, first, blocks);
    if (!opened.ok()) return opened;
    for (size_t i = 0; i < opened->size(); ++i) {
      if (!one_elsewhere || i != opened->size() / 2) {
        (*opened)[i].memory = lanes::MemoryKind::kDevice;
      }
    }
    return opened;
  }
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId attachment, ReservationId reservation,
                                              uint32_t block) override {
    auto opened = ForwardingLaneHost::OpenWrite(attachment, reservation, block);
    if (opened.ok()) opened->memory = lanes::MemoryKind::kDevice;
    return opened;
  }
  std::atomic<bool> one_elsewhere{false};
};

// The shard's end of its links, and how a server comes to serve it.
class NcclServing {
 public:
  std::function<void(shard::ShardServerOptions&, shard::ShardEngine&)> Configure() {
    return [this](shard::ShardServerOptions& options, shard::ShardEngine& engine) {
      slots_ = std::make_unique<DeviceSlots>(engine);
      end_ = cluster::NcclShardEnd::Create(*nccl_, slots_.get());
      options.lanes = {LaneKind::kNccl, LaneKind::kStream};
      options.absent_lanes = {{LaneKind::kView, "not in this test"}};
      options.services = [this](cluster::AuthorizeAttachment authorize) {
        std::vector<std::unique_ptr<grpc::Service>> services;
        services.push_back(end_->MakeService(std::move(authorize)));
        return services;
      };
      options.on_detached = [this](AttachmentId attachment) { end_->EndAttachment(attachment); };
    };
  }
  DeviceSlots& slots() { return *slots_; }
  cluster::NcclShardEnd& end() { return *end_; }

 private:
  const std::shared_ptr<const cluster::NcclContext> nccl_ = FakeNcclContext();
  std::unique_ptr<DeviceSlots> slots_;
  std::unique_ptr<cluster::NcclShardEnd> end_;
};

class NcclShard {
 public:
  NcclShard() : shard_({.configure = serving_.Configure()}) {}

  LoopbackShard& shard() { return shard_; }
  DeviceSlots& slots() { return serving_.slots(); }
  cluster::NcclShardEnd& end() { return serving_.end(); }

  std::unique_ptr<cluster::ShardLink> Connect(std::shared_ptr<const cluster::NcclContext> nccl) {
    auto link = cluster::ShardLink::Connect({.address = shard_.address(),
                                             .client_name = "nccl",
                                             .lanes = {LaneKind::kNccl, LaneKind::kStream},
                                             .nccl = std::move(nccl)},
                                            Soon());
    REPRISE_CHECK(link.ok());
    return *std::move(link);
  }

 private:
  NcclServing serving_;
  LoopbackShard shard_;
};

}  // namespace reprise::testing
