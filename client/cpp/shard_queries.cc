#include "client/cpp/shard_queries.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/deadline.h"
#include "proto/wire/status.h"
#include "proto/wire/verbs.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::client {
namespace {

class GrpcShardQueries final : public ShardQueries {
 public:
  explicit GrpcShardQueries(std::shared_ptr<const wire::Credentials> credentials)
      : credentials_(std::move(credentials)) {}

  absl::StatusOr<Explanation> Explain(const std::string& address, const ExplainQuery& query,
                                      absl::Time deadline) override {
    v1::ExplainRequest request;
    request.set_fingerprint(query.fingerprint.bytes.data(), kDigestBytes);
    request.set_keys(PackKeys(query.keys));
    request.mutable_token_ids()->Assign(query.tokens.begin(), query.tokens.end());
    // Asked by people, seldom: a channel for each question costs less than keeping one.
    auto stub = v1::ShardService::NewStub(wire::MakeChannel(address, credentials_));
    grpc::ClientContext context;
    context.set_deadline(wire::ToGprDeadline(deadline));
    v1::ExplainResponse response;
    REPRISE_RETURN_IF_ERROR(wire::FromGrpcStatus(stub->Explain(&context, request, &response)));
    return wire::FromMessage(response);
  }

 private:
  const std::shared_ptr<const wire::Credentials> credentials_;
};

}  // namespace

std::unique_ptr<ShardQueries> MakeGrpcShardQueries(
    std::shared_ptr<const wire::Credentials> credentials) {
  return std::make_unique<GrpcShardQueries>(std::move(credentials));
}

}  // namespace reprise::client
