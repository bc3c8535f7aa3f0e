// Every RPC that shards and routers serve, asked by everybody: the tables are taken from the
// protos, so that a new RPC is in them.
#include <google/protobuf/descriptor.h>

#include <map>
#include <set>

#include "cluster/lanes/stream/raw_call.h"
#include "cluster/membership/in_memory_membership.h"
#include "proto/types/refusal.h"
#include "service/router/router_process.h"
#include "tests/cluster/mtls.h"

namespace reprise::testing {
namespace {

std::vector<std::string> MethodsOf(const std::vector<std::string>& services) {
  std::vector<std::string> methods;
  for (const std::string& service : services) {
    const auto* const found =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
    REPRISE_CHECK(found != nullptr);
    for (int i = 0; i < found->method_count(); ++i) {
      methods.push_back(absl::StrCat("/", service, "/", found->method(i)->name()));
    }
  }
  return methods;
}

// Those that are for operators and the fleet.
const std::set<std::string> kForOperators = {"/reprise.v1.ShardService/WatchBlocks",
                                             "/reprise.v1.AdminService/Drain"};

const std::vector<std::string> kOfShards = {"reprise.v1.ShardService", "reprise.v1.AdminService"};
const std::vector<std::string> kOfRouters = {"reprise.v1.RouterService"};

// How a call with an empty message begins: its first answer, or how it ended.
absl::Status Ask(const std::string& address, const std::string& method,
                 const std::shared_ptr<const wire::Credentials>& credentials) {
  grpc::ByteBuffer response;
  lanes::RawCall call(wire::MakeChannel(address, credentials), method, Soon());
  const grpc::Slice nothing;
  call.WriteLast(grpc::ByteBuffer(&nothing, 1));
  call.StartRead(&response);
  if (call.FinishRead()) return absl::OkStatus();
  return call.Finish();
}

class MtlsAccessTest : public SecureShardTest {
 protected:
  cluster::InMemoryMembership members_;
  std::unique_ptr<router::RouterProcess> router_ = [this] {
    auto started = router::RouterProcess::Start(
        {.credentials = As(authority_, kFleet), .access = FleetPolicy(), .membership = &members_});
    REPRISE_CHECK(started.ok());
    return *std::move(started);
  }();
};

TEST_F(MtlsAccessTest, EveryRpcIsForWhomItSays) {
  ASSERT_GT(MethodsOf(kOfShards).size(), 12u);
  for (const char* who : {kAcme, kOperator, kFleet}) {
    const auto credentials = As(authority_, who);
    for (const std::string& method : MethodsOf(kOfShards)) {
      const absl::Status status = Ask(address(), method, credentials);
      if (who == kAcme && kForOperators.contains(method)) {
        EXPECT_EQ(RefusalReason(status), "OPERATORS_ALONE") << method << ": " << status;
      } else {
        EXPECT_FALSE(absl::IsPermissionDenied(status)) << who << " " << method << ": " << status;
        // Operators have drained it.
        EXPECT_TRUE(!absl::IsUnavailable(status) || RefusalReason(status) == "DRAINING")
            << who << " " << method << ": " << status;
      }
    }
    for (const std::string& method : MethodsOf(kOfRouters)) {
      const absl::Status status = Ask(router_->address(), method, credentials);
      EXPECT_FALSE(absl::IsPermissionDenied(status)) << who << " " << method << ": " << status;
    }
  }
}

TEST_F(MtlsAccessTest, WhoIsNotServedIsToldSoByEveryRpc) {
  const auto stranger = As(authority_, kStranger);
  const auto ask = [&](const std::string& server, const std::vector<std::string>& services) {
    for (const std::string& method : MethodsOf(services)) {
      const absl::Status status = Ask(server, method, stranger);
      EXPECT_EQ(RefusalReason(status), "CALLER_NOT_ALLOWED") << method << ": " << status;
    }
  };
  ask(address(), kOfShards);
  ask(router_->address(), kOfRouters);
  EXPECT_EQ(shard_.shard().engine().Describe(Tenant{kStranger}).attachments, 0u);
}

}  // namespace
}  // namespace reprise::testing
