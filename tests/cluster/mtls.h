// A cluster whose connections prove who is at their ends, and the people around it.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/wire/credentials.h"
#include "tests/cluster/peered_shards.h"
#include "tests/support/test_authority.h"

namespace reprise::testing {

inline constexpr char kFleet[] = "spiffe://test/reprise";
inline constexpr char kOperator[] = "spiffe://test/ops";
inline constexpr char kAcme[] = "spiffe://test/tenant/acme";
inline constexpr char kOther[] = "spiffe://test/tenant/other";
inline constexpr char kStranger[] = "spiffe://elsewhere/tenant";  // of the same authority

inline std::shared_ptr<const wire::Credentials> Load(TlsOptions options,
                                                     std::vector<std::string> servers = {kFleet}) {
  options.servers = std::move(servers);
  auto loaded = wire::Credentials::Load(options);
  REPRISE_CHECK(loaded.ok());
  return *std::move(loaded);
}

// As somebody with that id, who believes servers of the fleet.
inline std::shared_ptr<const wire::Credentials> As(TestAuthority& authority,
                                                   const std::string& spiffe_id) {
  return Load(authority.IssueTo(spiffe_id));
}

inline wire::AccessPolicy FleetPolicy() {
  return {
      .proven = true, .allowed = {"spiffe://test"}, .fleet = {kFleet}, .operators = {kOperator}};
}

inline PeeredShard::Options SecureShard(TestAuthority& authority, uint32_t replication = 1,
                                        std::string id = "") {
  return {.id = std::move(id),
          .replication = replication,
          .credentials = As(authority, kFleet),
          .access = FleetPolicy()};
}

inline absl::StatusOr<std::unique_ptr<cluster::ShardLink>> Attach(
    const std::string& address, const std::shared_ptr<const wire::Credentials>& credentials,
    const std::string& tenant = "", absl::Duration patience = absl::Seconds(30)) {
  return cluster::ShardLink::Connect({.address = address,
                                      .client_name = "test",
                                      .credentials = credentials,
                                      .tenant = Tenant{tenant}},
                                     absl::Now() + patience);
}

// One shard of the fleet, and the authority that its clients get their certificates of.
class SecureShardTest : public ::testing::Test {
 protected:
  const std::string& address() { return shard_.shard().address(); }

  TestAuthority authority_;
  PeeredShard shard_{SecureShard(authority_, /*replication=*/1, "secure")};
};

}  // namespace reprise::testing
