// Real shard servers on loopback in the test's own process that know each other.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/membership/in_memory_membership.h"
#include "reprise/v1/admin.grpc.pb.h"
#include "service/shard/shard_peers.h"
#include "tests/support/loopback_shard.h"

namespace reprise::testing {

// A shard whose peers are told it later.
class PeeredShard {
 public:
  struct Options {
    std::string id;
    uint32_t replication = 1;
    uint64_t dram_bytes = 16 << 20;
    uint64_t hbm_bytes = 0;
    std::shared_ptr<HostHbmControl> hbm = {};
    std::shared_ptr<const wire::Credentials> credentials = {};  // nullptr: plaintext
    wire::AccessPolicy access = {};
  };
  explicit PeeredShard(const Options& options)
      : shard_({.id = options.id,
                .dram_bytes = options.dram_bytes,
                .hbm_bytes = options.hbm_bytes,
                .hbm = options.hbm,
                .configure = [&](shard::ShardServerOptions& serving, shard::ShardEngine& engine) {
                  auto membership = std::make_unique<cluster::InMemoryMembership>();
                  membership_ = membership.get();
                  peers_ = std::make_unique<shard::ShardPeers>(
                      std::move(membership),
                      shard::ShardPeersOptions{.peers = {.self = ShardId{options.id},
                                                         .credentials = options.credentials},
                                               .replication = options.replication},
                      engine);
                  serving.peers = peers_.get();
                  serving.credentials = options.credentials;
                  serving.access = options.access;
                }}) {}
  ~PeeredShard() {
    shard_.server().Stop(absl::ZeroDuration());
    peers_.reset();
  }

  LoopbackShard& shard() { return shard_; }
  shard::ShardPeers& peers() { return *peers_; }
  void Meet(const std::vector<cluster::Member>& members) { membership_->Set(members); }

  uint32_t Run(const CacheSpec& spec, const std::vector<BlockKey>& keys) {
    const auto link = shard_.Connect();
    const auto opened = link->OpenSpec(spec, Soon());
    const auto run = link->Lookup(opened->handle, keys, Soon());
    EXPECT_TRUE(run.ok()) << run.status();
    return run.value_or(0);
  }
  absl::StatusOr<cluster::PulledRun> Pull(const CacheSpec& spec, const std::vector<BlockKey>& keys,
                                          const std::string& from = "") {
    const auto link = shard_.Connect();
    const auto opened = link->OpenSpec(spec, Soon());
    return link->Pull({.spec = opened->handle, .keys = keys, .session_id = "chat", .from = {from}},
                      Soon());
  }
  v1::DrainResponse Drain(const v1::DrainRequest& request = {}) {
    const auto stub = v1::AdminService::NewStub(wire::MakeChannel(shard_.address()));
    grpc::ClientContext context;
    v1::DrainResponse response;
    const grpc::Status status = stub->Drain(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

 private:
  cluster::InMemoryMembership* membership_ = nullptr;
  std::unique_ptr<shard::ShardPeers> peers_;
  LoopbackShard shard_;
};

// "a", "b", ... that know each other.
class PeeredShards {
 public:
  explicit PeeredShards(std::vector<PeeredShard::Options> options) {
    std::vector<cluster::Member> members;
    for (PeeredShard::Options& one : options) {
      if (one.id.empty()) one.id = std::string(1, static_cast<char>('a' + shards_.size()));
      shards_.push_back(std::make_unique<PeeredShard>(one));
      members.push_back({.id = {one.id}, .address = shards_.back()->shard().address()});
    }
    for (const auto& shard : shards_) shard->Meet(members);
  }
  PeeredShard& operator[](size_t i) { return *shards_[i]; }
  size_t size() const { return shards_.size(); }

 private:
  std::vector<std::unique_ptr<PeeredShard>> shards_;
};

}  // namespace reprise::testing
