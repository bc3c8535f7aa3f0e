// Every RPC that a shard serves, asked by everybody: the table is taken from the protos, so that a
// new RPC is in it.
#include <google/protobuf/descriptor.h>

#include <map>
#include <set>

#include "cluster/lanes/stream/raw_call.h"
#include "proto/types/refusal.h"
#include "tests/cluster/mtls.h"

namespace reprise::testing {
namespace {

std::vector<std::string> Methods() {
  std::vector<std::string> methods;
  for (const char* service : {"reprise.v1.ShardService", "reprise.v1.AdminService"}) {
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

class MtlsAccessTest : public ::testing::Test {
 protected:
  // How a call with an empty message begins: its first answer, or how it ended.
  absl::Status Ask(const std::string& method,
                   const std::shared_ptr<const wire::Credentials>& credentials) {
    grpc::ByteBuffer response;
    lanes::RawCall call(wire::MakeChannel(shard_.shard().address(), credentials), method, Soon());
    const grpc::Slice nothing;
    call.WriteLast(grpc::ByteBuffer(&nothing, 1));
    call.StartRead(&response);
    if (call.FinishRead()) return absl::OkStatus();
    return call.Finish();
  }

  TestAuthority authority_;
  PeeredShard shard_{[this] {
    PeeredShard::Options options = SecureShard(authority_);
    options.id = "secure";
    return options;
  }()};
};

TEST_F(MtlsAccessTest, EveryRpcIsForWhomItSays) {
  ASSERT_GT(Methods().size(), 12u);
  for (const char* who : {kAcme, kOperator, kFleet}) {
    const auto credentials = As(authority_, who);
    for (const std::string& method : Methods()) {
      const absl::Status status = Ask(method, credentials);
      if (who == kAcme && kForOperators.contains(method)) {
        EXPECT_EQ(RefusalReason(status), "OPERATORS_ALONE") << method << ": " << status;
      } else {
        EXPECT_FALSE(absl::IsPermissionDenied(status)) << who << " " << method << ": " << status;
        // Operators have drained it.
        EXPECT_TRUE(!absl::IsUnavailable(status) || RefusalReason(status) == "DRAINING")
            << who << " " << method << ": " << status;
      }
    }
  }
}

TEST_F(MtlsAccessTest, WhoIsNotServedIsToldSoByEveryRpc) {
  const auto stranger = As(authority_, kStranger);
  for (const std::string& method : Methods()) {
    const absl::Status status = Ask(method, stranger);
    EXPECT_EQ(RefusalReason(status), "CALLER_NOT_ALLOWED") << method << ": " << status;
  }
  EXPECT_EQ(shard_.shard().engine().Describe(Tenant{kStranger}).attachments, 0u);
}

}  // namespace
}  // namespace reprise::testing
