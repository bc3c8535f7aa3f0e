// A real shard server on loopback in the test's own process, and what tests say to it.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/link/channel.h"
#include "cluster/link/shard_link.h"
#include "proto/types/clock.h"
#include "proto/types/status_macros.h"
#include "proto/wire/status.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_service_server.h"
#include "tests/support/block_content.h"

namespace reprise::testing {

// Far enough that only a hang reaches it.
inline absl::Time Soon() {
  return absl::Now() + absl::Seconds(30);
}

class LoopbackShard {
 public:
  struct Options {
    uint64_t dram_bytes = 64 << 20;
    shard::AdmissionLimits admission;
    const Clock* clock = nullptr;  // nullptr: the monotonic clock
  };
  LoopbackShard() : LoopbackShard(Options{}) {}
  explicit LoopbackShard(const Options& options) {
    auto engine = shard::ShardEngine::Create(
        {.id = ShardId{"shard-t"}, .dram_bytes = options.dram_bytes, .clock = options.clock});
    REPRISE_CHECK(engine.ok());
    engine_ = *std::move(engine);
    auto server = shard::ShardServer::Start(
        {.id = ShardId{"shard-t"}, .admission = options.admission}, *engine_);
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
    return v1::ShardService::NewStub(cluster::MakeChannel(address()));
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

// A spec whose blocks have about `block_bytes`.
inline CacheSpec SpecOf(uint64_t block_bytes, std::string model = "test-model") {
  CacheSpec spec;
  spec.model = std::move(model);
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kF16;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.block_tokens = 4;
  spec.head_dim = static_cast<uint32_t>(block_bytes / (2 * 2 * 2 * 4 * 2));
  return spec;
}

// The content that belongs to each key.
class ContentSource final : public lanes::BlockSource {
 public:
  ContentSource(std::vector<BlockKey> keys, uint64_t block_bytes)
      : keys_(std::move(keys)), block_(block_bytes) {}
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    FillContent(keys_.at(i), 0, block_);
    return std::span<const uint8_t>(block_);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    FillContent(keys_.at(i), 0, slot);
    return absl::OkStatus();
  }

 private:
  const std::vector<BlockKey> keys_;
  std::vector<uint8_t> block_;
};

// Compares what arrives with the content that belongs to each key.
class ContentSink final : public lanes::BlockSink {
 public:
  ContentSink(std::vector<BlockKey> keys, uint64_t block_bytes)
      : keys_(std::move(keys)), block_(block_bytes) {}
  std::span<uint8_t> Buffer(uint32_t) override { return block_; }
  absl::Status Complete(uint32_t i) override { return Deliver(i, block_); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    EXPECT_EQ(i, completed);
    if (!HasContent(keys_.at(i), 0, bytes)) ++wrong;
    ++completed;
    return absl::OkStatus();
  }

  uint32_t completed = 0;
  uint32_t wrong = 0;

 private:
  const std::vector<BlockKey> keys_;
  std::vector<uint8_t> block_;
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

inline std::vector<Checksum128> ChecksumsOf(std::span<const BlockKey> keys, const CacheSpec& spec) {
  const BlockLayout layout = LayoutOf(spec);
  std::vector<uint8_t> block(layout.block_bytes);
  std::vector<Checksum128> checksums;
  for (const BlockKey& key : keys) {
    FillContent(key, 0, block);
    checksums.push_back(ChecksumOf(block, layout.layer_bytes));
  }
  return checksums;
}

// Reserves, writes and commits the chain's content. The blocks committed.
inline absl::StatusOr<uint32_t> StoreChain(cluster::ShardLink& link, const CacheSpec& spec,
                                           std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link.OpenSpec(spec, Soon()));
  REPRISE_ASSIGN_OR_RETURN(const cluster::ReservedRun reserved,
                           link.Reserve({.spec = opened.handle, .keys = keys}, Soon()));
  std::vector<uint32_t> granted;
  std::vector<BlockKey> granted_keys;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    if (reserved.outcomes[i] != ReserveOutcome::kGranted) continue;
    granted.push_back(i);
    granted_keys.push_back(keys[i]);
  }
  if (granted.empty()) return 0;
  ContentSource source(granted_keys, opened.block_bytes);
  REPRISE_RETURN_IF_ERROR(
      link.lane().Write({reserved.reservation, granted, opened.block_bytes}, source, Soon()));
  REPRISE_ASSIGN_OR_RETURN(
      const cluster::CommittedRun committed,
      link.Commit(reserved.reservation, granted, ChecksumsOf(granted_keys, spec), Soon()));
  return committed.committed;
}

// Leases and reads the stored prefix; the blocks that came, all compared with their content.
inline absl::StatusOr<uint32_t> FetchChain(cluster::ShardLink& link, const CacheSpec& spec,
                                           std::span<const BlockKey> keys) {
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link.OpenSpec(spec, Soon()));
  REPRISE_ASSIGN_OR_RETURN(const cluster::AcquiredRun run,
                           link.Acquire(opened.handle, keys, 0, Soon()));
  if (!run.lease) return 0;
  ContentSink sink({keys.begin(), keys.end()}, opened.block_bytes);
  const absl::Status read =
      link.lane().Read({run.lease, 0, run.run_blocks, opened.block_bytes}, sink, Soon());
  EXPECT_EQ(sink.wrong, 0u);
  REPRISE_RETURN_IF_ERROR(link.Release(run.lease, Soon()));
  REPRISE_RETURN_IF_ERROR(read);
  return sink.completed;
}

}  // namespace reprise::testing
