// A router and shards as real processes on loopback, with a members file of their own, and what
// tests ask of them.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/link/shard_link.h"
#include "proto/wire/channel.h"
#include "proto/wire/spec.h"
#include "proto/wire/status.h"
#include "reprise/v1/router.grpc.pb.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/support/block_content.h"
#include "tests/support/loopback_shard.h"
#include "tests/support/process.h"

namespace reprise::testing {

// Only a hang reaches it.
inline constexpr absl::Duration kPatience = absl::Seconds(40);

inline bool Eventually(const std::function<bool()>& holds) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!holds()) {
    if (absl::Now() > deadline) return false;
    poll(nullptr, 0, 10);
  }
  return true;
}

class RouterCluster {
 public:
  // `shard` is the executable of the shards, `arguments` what it is given beside the usual.
  explicit RouterCluster(int replication = 2, std::string shard = "reprise-shard",
                         std::vector<std::string> arguments = {})
      : replication_(replication),
        shard_executable_(std::move(shard)),
        arguments_(std::move(arguments)) {
    std::string name = ::testing::TempDir() + "/reprise-cluster.XXXXXX";
    REPRISE_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
  }
  ~RouterCluster() { std::filesystem::remove_all(folder_); }

  // A shard that is no member until WriteMembers.
  void StartShard(const std::string& id) {
    std::vector<std::string> command = {BinFolder() + "/" + shard_executable_,
                                        "--id",
                                        id,
                                        "--listen",
                                        "127.0.0.1:0",
                                        "--dram",
                                        "16MiB",
                                        "--replication",
                                        absl::StrCat(replication_),
                                        "--members",
                                        members_path(),
                                        "--no-view",
                                        "-o",
                                        "json"};
    command.insert(command.end(), arguments_.begin(), arguments_.end());
    auto process = std::make_unique<Process>(command);
    addresses_[id] = AddressOf(*process);
    shards_[id] = std::move(process);
  }
  void WriteMembers() const {
    const std::string fresh = members_path() + ".new";
    std::ofstream file(fresh);
    file << "shards:\n";
    for (const auto& [id, address] : addresses_) {
      file << "  - {id: " << id << ", address: \"" << address << "\"}\n";
    }
    file.close();
    std::filesystem::rename(fresh, members_path());
  }
  void StartRouter() {
    router_ = std::make_unique<Process>(
        std::vector<std::string>{BinFolder() + "/reprise-router", "--listen", "127.0.0.1:0",
                                 "--members", members_path(), "-o", "json"});
    router_address_ = AddressOf(*router_);
    stub_ = v1::RouterService::NewStub(wire::MakeChannel(router_address_));
  }
  // `count` shards that the router sees alive.
  void Start(int count) {
    for (int i = 0; i < count; ++i) StartShard(absl::StrCat("shard-", i));
    WriteMembers();
    StartRouter();
    ASSERT_TRUE(AwaitState(v1::SHARD_STATE_ALIVE, static_cast<size_t>(count)));
  }

  Process& shard(const std::string& id) { return *shards_.at(id); }
  Process& router() { return *router_; }
  v1::RouterService::Stub& stub() { return *stub_; }
  const std::string& router_address() const { return router_address_; }
  const std::string& address(const std::string& id) const { return addresses_.at(id); }
  std::string members_path() const { return folder_ + "/members.yaml"; }

  std::unique_ptr<cluster::ShardLink> Link(const std::string& id) {
    auto link =
        cluster::ShardLink::Connect({.address = address(id), .client_name = "test"}, Soon());
    REPRISE_CHECK(link.ok());
    return *std::move(link);
  }

  v1::RouterServiceDescribeResponse Describe() {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    v1::RouterServiceDescribeResponse response;
    stub_->Describe(&context, {}, &response);
    return response;
  }
  v1::RouterServiceDescribeResponse::ShardIndex Knowledge(const std::string& id) {
    const v1::RouterServiceDescribeResponse description = Describe();
    for (const auto& shard : description.shards()) {
      if (shard.shard().shard_id() == id) return shard;
    }
    return {};
  }
  // True once `count` shards have the state.
  bool AwaitState(v1::ShardState state, size_t count) {
    return Eventually([&] {
      size_t have = 0;
      const v1::RouterServiceDescribeResponse description = Describe();
      for (const auto& shard : description.shards()) have += shard.state() == state ? 1 : 0;
      return have == count;
    });
  }

  // The run of each shard that Locate offers.
  std::map<std::string, uint32_t> Locate(const CacheSpec& spec, std::span<const BlockKey> keys) {
    v1::LocateRequest request;
    request.set_fingerprint(wire::ToBytes(FingerprintOf(spec)));
    request.set_keys(PackKeys(keys));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    v1::LocateResponse response;
    stub_->Locate(&context, request, &response);
    std::map<std::string, uint32_t> runs;
    for (const auto& run : response.runs()) runs[run.shard().shard_id()] = run.blocks();
    return runs;
  }
  bool AwaitRuns(const CacheSpec& spec, std::span<const BlockKey> keys,
                 const std::map<std::string, uint32_t>& runs) {
    std::map<std::string, uint32_t> last;
    const bool came = Eventually([&] { return (last = Locate(spec, keys)) == runs; });
    if (!came) {
      for (const auto& [id, run] : last) ADD_FAILURE() << "Locate offers " << id << ": " << run;
    }
    return came;
  }

  v1::RouteSessionResponse Route(const std::string& session, const CacheSpec* spec = nullptr,
                                 std::span<const BlockKey> keys = {}) {
    v1::RouteSessionRequest request;
    request.set_session_id(session);
    if (spec != nullptr) request.set_fingerprint(wire::ToBytes(FingerprintOf(*spec)));
    request.set_keys(PackKeys(keys));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    v1::RouteSessionResponse response;
    const grpc::Status status = stub_->RouteSession(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  uint64_t ShardCounter(const std::string& id, const std::string& name) {
    const auto stub = v1::ShardService::NewStub(wire::MakeChannel(address(id)));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    v1::ShardServiceDescribeResponse response;
    stub->Describe(&context, {}, &response);
    for (const auto& counter : response.counters()) {
      if (counter.name() == name) return counter.value();
    }
    ADD_FAILURE() << "no counter " << name;
    return 0;
  }

 private:
  static std::string AddressOf(Process& process) {
    const std::optional<std::string> line = process.ReadLine(kPatience);
    REPRISE_CHECK(line.has_value());
    return nlohmann::json::parse(*line).at("address").get<std::string>();
  }

  const int replication_;
  const std::string shard_executable_;
  const std::vector<std::string> arguments_;
  std::string folder_;
  std::map<std::string, std::string> addresses_;
  std::map<std::string, std::unique_ptr<Process>> shards_;
  std::unique_ptr<Process> router_;
  std::string router_address_;
  std::unique_ptr<v1::RouterService::Stub> stub_;
};

// Stores the chain's content as the session's, all blocks or an error.
inline absl::Status StoreSession(cluster::ShardLink& link, const CacheSpec& spec,
                                 std::span<const BlockKey> keys, const std::string& session) {
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link.OpenSpec(spec, Soon()));
  REPRISE_ASSIGN_OR_RETURN(
      const cluster::ReservedRun reserved,
      link.Reserve({.spec = opened.handle, .keys = keys, .session_id = session}, Soon()));
  std::vector<uint32_t> granted;
  std::vector<BlockKey> granted_keys;
  for (uint32_t i = 0; i < keys.size(); ++i) {
    if (reserved.outcomes[i] != ReserveOutcome::kGranted) continue;
    granted.push_back(i);
    granted_keys.push_back(keys[i]);
  }
  if (granted.empty()) return absl::OkStatus();
  ContentSource source(granted_keys, opened.block_bytes);
  REPRISE_RETURN_IF_ERROR(
      link.lane().Write({reserved.reservation, granted, opened.block_bytes}, source, Soon()));
  return link.Commit(reserved.reservation, granted, ChecksumsOf(granted_keys, spec), Soon())
      .status();
}

}  // namespace reprise::testing
