// A real shard server on loopback in the test's own process, and what tests say to it.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/link/shard_link.h"
#include "proto/types/clock.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/status.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_service_server.h"
#include "tests/support/host_hbm_device.h"
#include "tests/support/stored_chain.h"

namespace reprise::testing {

class LoopbackShard {
 public:
  struct Options {
    std::string id = "shard-t";
    uint64_t dram_bytes = 64 << 20;
    uint64_t hbm_bytes = 0;                    // of a device that `hbm` controls
    std::shared_ptr<HostHbmControl> hbm = {};  // nullptr: nobody does
    shard::AdmissionLimits admission;
    const Clock* clock = nullptr;  // nullptr: the monotonic clock
    // Changes how it is served; may be empty.
    std::function<void(shard::ShardServerOptions&, shard::ShardEngine&)> configure;
  };
  LoopbackShard() : LoopbackShard(Options{}) {}
  explicit LoopbackShard(const Options& options) {
    auto control = options.hbm != nullptr ? options.hbm : std::make_shared<HostHbmControl>();
    auto engine = shard::ShardEngine::Create(
        {.id = ShardId{options.id},
         .dram_bytes = options.dram_bytes,
         .hbm_bytes = options.hbm_bytes,
         .hbm_device = std::make_unique<HostHbmDevice>(std::move(control)),
         .clock = options.clock});
    REPRISE_CHECK(engine.ok());
    engine_ = *std::move(engine);
    shard::ShardServerOptions serving{.id = ShardId{options.id},
                                      .admission = shard::Admission::Create(options.admission)};
    if (options.configure) options.configure(serving, *engine_);
    auto server = shard::ShardServer::Start(std::move(serving), *engine_);
    REPRISE_CHECK(server.ok());
    server_ = *std::move(server);
  }
  ~LoopbackShard() { server_.reset(); }

  shard::ShardEngine& engine() { return *engine_; }
  shard::ShardServer& server() { return *server_; }
  const std::string& address() const { return server_->address(); }

  std::unique_ptr<cluster::ShardLink> Connect(std::string name = "test") {
    auto link =
        cluster::ShardLink::Connect({.address = address(), .client_name = std::move(name)}, Soon());
    REPRISE_CHECK(link.ok());
    return *std::move(link);
  }
  std::unique_ptr<v1::ShardService::Stub> Stub() {
    return v1::ShardService::NewStub(wire::MakeChannel(address()));
  }

  // Waits until leases, reservations and attachments are gone. False when some stay.
  bool AwaitIdle(absl::Duration timeout = absl::Seconds(30)) {
    const absl::Time deadline = absl::Now() + timeout;
    while (absl::Now() < deadline) {
      const shard::EngineDescription now = engine_->Describe(Tenant{"default"});
      if (now.leases + now.reservations + now.attachments == 0) return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  std::unique_ptr<shard::ShardEngine> engine_;
  std::unique_ptr<shard::ShardServer> server_;
};

// One attachment over the generated stub, for requests that no client of ours would send.
class RawAttachment {
 public:
  explicit RawAttachment(v1::ShardService::Stub& stub) : stream_(stub.Attach(&context_)) {
    v1::AttachRequest hello;
    hello.mutable_hello();
    v1::AttachResponse welcome;
    REPRISE_CHECK(stream_->Write(hello) && stream_->Read(&welcome));
    id_ = welcome.welcome().attachment_id();
  }
  ~RawAttachment() {
    context_.TryCancel();
    stream_->Finish();
  }
  uint64_t id() const { return id_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>> stream_;
  uint64_t id_ = 0;
};

}  // namespace reprise::testing
