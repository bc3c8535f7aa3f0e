#include "client/cli/top/sampler.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/clock.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/deadline.h"
#include "proto/wire/status.h"

namespace reprise::cli {
namespace {

constexpr absl::Duration kAskWhetherToStop = absl::Milliseconds(50);
constexpr absl::Duration kDeadPatience = absl::Milliseconds(500);  // it may have come back

// A call of Describe that is under way.
template <typename Response>
struct Asked {
  grpc::ClientContext context;
  Response response;
  grpc::Status status;
  absl::Time answered;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
};

template <typename Service, typename Request, typename Response>
void Ask(std::unique_ptr<typename Service::Stub>& stub, const std::string& address,
         const std::shared_ptr<const wire::Credentials>& credentials, absl::Duration patience,
         grpc::CompletionQueue& queue, Asked<Response>& asked) {
  if (stub == nullptr) stub = Service::NewStub(wire::MakeChannel(address, credentials));
  asked.context.set_deadline(wire::ToGprDeadline(absl::Now() + patience));
  asked.reader = stub->AsyncDescribe(&asked.context, Request(), &queue);
  asked.reader->Finish(&asked.response, &asked.status, &asked);
}

// Until all have ended, each by its deadline at the latest.
template <typename Response>
void Await(grpc::CompletionQueue& queue, std::vector<std::unique_ptr<Asked<Response>>>& calls,
           const std::function<bool()>& stop) {
  size_t running = calls.size();
  while (running > 0) {
    void* tag = nullptr;
    bool ok = false;
    const auto next =
        queue.AsyncNext(&tag, &ok, wire::ToGprDeadline(absl::Now() + kAskWhetherToStop));
    if (next == grpc::CompletionQueue::GOT_EVENT) {
      static_cast<Asked<Response>*>(tag)->answered = MonotonicClock().Now();
      --running;
    } else if (stop()) {
      for (auto& call : calls) call->context.TryCancel();
    }
  }
  queue.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) {
  }
}

absl::Status StatusOf(const grpc::Status& status, absl::Duration patience) {
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(
        absl::StrCat("no answer within ", absl::FormatDuration(patience)));
  }
  return wire::FromGrpcStatus(status);
}

}  // namespace

absl::StatusOr<TopSampler> TopSampler::Create(const Where& where) {
  REPRISE_RETURN_IF_ERROR(CheckWhere(where));
  REPRISE_ASSIGN_OR_RETURN(auto credentials, wire::Credentials::Load(where.tls));
  return TopSampler(where, std::move(credentials));
}

absl::StatusOr<TopSample> TopSampler::Look(absl::Duration patience,
                                           const std::function<bool()>& stop) {
  if (where_.shards.empty()) {
    last_.router_status = LookAtRouter(patience, stop);
    if (last_.router.empty()) {
      const absl::Status& status = last_.router_status;
      return absl::Status(status.code(),
                          absl::StrCat("router ", where_.routers.back(), ": ", status.message()));
    }
  }
  TopSample sample = last_;
  sample.shards = ShardsToAsk();
  LookAtShards(patience, stop, sample.shards);
  if (stop()) return absl::CancelledError("stopped");
  sample.at = MonotonicClock().Now();
  sample.wall = absl::Now();
  return sample;
}

// The one that answered last is asked first.
absl::Status TopSampler::LookAtRouter(absl::Duration patience, const std::function<bool()>& stop) {
  std::vector<std::string> addresses = where_.routers;
  std::stable_partition(addresses.begin(), addresses.end(),
                        [this](const std::string& address) { return address == last_.router; });
  absl::Status status;
  for (const std::string& address : addresses) {
    grpc::CompletionQueue queue;
    std::vector<std::unique_ptr<Asked<v1::RouterServiceDescribeResponse>>> calls;
    calls.push_back(std::make_unique<Asked<v1::RouterServiceDescribeResponse>>());
    const absl::Duration share = patience / static_cast<double>(addresses.size());
    Ask<v1::RouterService, v1::RouterServiceDescribeRequest>(routers_[address], address,
                                                             credentials_, share, queue, *calls[0]);
    Await(queue, calls, stop);
    status = StatusOf(calls[0]->status, share);
    if (status.ok()) {
      last_.router = address;
      last_.router_at = calls[0]->answered;
      last_.router_description = std::move(calls[0]->response);
      return absl::OkStatus();
    }
    // Its channel would wait before it dials again.
    routers_.erase(address);
    if (stop()) return absl::CancelledError("stopped");
  }
  return status;
}

std::vector<TopShard> TopSampler::ShardsToAsk() const {
  std::vector<TopShard> shards;
  for (const auto& shard : last_.router_description.shards()) {
    TopShard& one = shards.emplace_back();
    one.report.address = shard.shard().address();
    one.report.shard_id = shard.shard().shard_id();
    one.report.state = StateName(shard.state());
  }
  for (const std::string& address : where_.shards) {
    TopShard& one = shards.emplace_back();
    one.report.address = address;
    const auto known = ids_.find(address);
    if (known != ids_.end()) one.report.shard_id = known->second;
  }
  return shards;
}

void TopSampler::LookAtShards(absl::Duration patience, const std::function<bool()>& stop,
                              std::vector<TopShard>& shards) {
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Asked<v1::ShardServiceDescribeResponse>>> calls;
  Stubs<v1::ShardService> kept;  // of those that are still there
  std::vector<absl::Duration> given;
  for (const TopShard& shard : shards) {
    const std::string& address = shard.report.address;
    auto& stub = kept[address];
    if (stub == nullptr) stub = std::move(shards_[address]);
    calls.push_back(std::make_unique<Asked<v1::ShardServiceDescribeResponse>>());
    given.push_back(shard.report.state == "dead" ? std::min(patience, kDeadPatience) : patience);
    Ask<v1::ShardService, v1::ShardServiceDescribeRequest>(stub, address, credentials_,
                                                           given.back(), queue, *calls.back());
  }
  Await(queue, calls, stop);
  shards_ = std::move(kept);
  for (size_t i = 0; i < shards.size(); ++i) {
    ShardReport& report = shards[i].report;
    report.status = StatusOf(calls[i]->status, given[i]);
    shards[i].at = calls[i]->answered;
    if (!report.status.ok()) {
      shards_.erase(report.address);
      continue;
    }
    report.description = std::move(calls[i]->response);
    report.shard_id = report.description.shard_id();
    if (!where_.shards.empty()) ids_[report.address] = report.shard_id;
  }
}

}  // namespace reprise::cli
