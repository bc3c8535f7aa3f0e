// A shard with something at stake, and the claim that bad input changes nothing in it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/spec.h"
#include "tests/support/loopback_shard.h"
#include "tests/support/manual_clock.h"

namespace reprise::testing {

using absl::StatusCode;
using Stub = v1::ShardService::Stub;

inline constexpr uint64_t kUnknown = 0x1234'5678'9abc'def1;

// A shard with a stored chain, a lease on it, and a reservation of three blocks of which none is
// written.
class Scene {
 public:
  // `configure`: as of LoopbackShard.
  explicit Scene(
      std::function<void(shard::ShardServerOptions&, shard::ShardEngine&)> configure = {})
      : shard({.dram_bytes = 16 << 20, .clock = &clock, .configure = std::move(configure)}) {
    v1::OpenSpecRequest open;
    open.set_attachment_id(attachment.id());
    *open.mutable_spec() = wire::ToMessage(spec);
    v1::OpenSpecResponse opened;
    EXPECT_EQ(Unary(&Stub::OpenSpec, open, &opened), absl::OkStatus());
    handle = opened.spec_handle();
    block_bytes = opened.block_bytes();
    {
      const auto link = shard.Connect();
      EXPECT_EQ(*StoreChain(*link, spec, stored), stored.size());
    }
    v1::AcquireRequest acquire;
    acquire.set_attachment_id(attachment.id());
    acquire.set_spec_handle(handle);
    acquire.set_keys(PackKeys(stored));
    acquire.set_first_block(1);
    acquire.set_ttl_ms(1000);
    v1::AcquireResponse acquired;
    EXPECT_EQ(Unary(&Stub::Acquire, acquire, &acquired), absl::OkStatus());
    lease = acquired.lease_id();
    v1::ReserveRequest reserve;
    reserve.set_attachment_id(attachment.id());
    reserve.set_spec_handle(handle);
    reserve.set_keys(PackKeys(fresh));
    v1::ReserveResponse reserved;
    EXPECT_EQ(Unary(&Stub::Reserve, reserve, &reserved), absl::OkStatus());
    reservation = reserved.reservation_id();
    // The link that stored is gone for good.
    while (shard.engine().Describe(Tenant{"default"}).attachments > 1) std::this_thread::yield();
  }

  template <typename Request, typename Response>
  absl::Status Unary(grpc::Status (Stub::*verb)(grpc::ClientContext*, const Request&, Response*),
                     const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return wire::FromGrpcStatus((stub.get()->*verb)(&context, request, response));
  }

  // What must not change. Attachments may end; what is stored, leased and reserved may not.
  std::string Accounting() const {
    const shard::EngineDescription now =
        const_cast<LoopbackShard&>(shard).engine().Describe(Tenant{"default"});
    return absl::StrCat("blocks ", now.blocks, " leases ", now.leases, " reservations ",
                        now.reservations, " used ", now.tiers.at(0).used_bytes);
  }

  ManualClock clock;
  LoopbackShard shard;
  const std::unique_ptr<Stub> stub = shard.Stub();
  const RawAttachment attachment{*stub};
  const CacheSpec spec = SpecOf(8192);
  const std::vector<BlockKey> stored = ChainNamed("stored", 4);
  const std::vector<BlockKey> fresh = ChainNamed("fresh", 3);
  uint32_t handle = 0;
  uint64_t block_bytes = 0;
  uint64_t lease = 0;        // blocks 1 to 3 of `stored`
  uint64_t reservation = 0;  // blocks 0 to 2 of `fresh`
};

struct BadInput {
  const char* name;
  std::function<absl::Status(Scene&)> send;
  StatusCode code;
  const char* reason;  // "": gRPC's own refusal, or none
};

class BadInputTest : public ::testing::TestWithParam<BadInput> {};

inline std::string NameOf(const ::testing::TestParamInfo<BadInput>& info) {
  return info.param.name;
}

}  // namespace reprise::testing
