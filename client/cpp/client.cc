#include "client/cpp/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/client_core.h"
#include "kernels/quantize/spec_codec.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

absl::Status Misuse(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

absl::Status CheckAddresses(absl::string_view option, const std::vector<std::string>& addresses) {
  for (const std::string& address : addresses) {
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
      return Misuse("OPTION_ADDRESS",
                    absl::StrCat(option, " has \"", address, "\": write it as HOST:PORT"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ClientOptions& options) {
  if (options.routers.empty() == options.shards.empty()) {
    return Misuse("OPTION_ROUTER", "give either a router or a list of shards, and not both");
  }
  REPRISE_RETURN_IF_ERROR(CheckAddresses("router", options.routers));
  REPRISE_RETURN_IF_ERROR(CheckAddresses("shards", options.shards));
  if (options.name.size() > limits::kNameBytesMax) {
    return Misuse("OPTION_NAME",
                  absl::StrCat("name has ", options.name.size(), " bytes, more than ",
                               limits::kNameBytesMax, ": shorten it"));
  }
  if (options.threads == 0 || options.threads > limits::kClientThreadsMax) {
    return Misuse("OPTION_THREADS", absl::StrCat("threads is ", options.threads, ": give 1 to ",
                                                 limits::kClientThreadsMax));
  }
  if (options.lanes.empty())
    return Misuse("OPTION_LANES", "lanes is empty: give at least \"stream\"");
  return absl::OkStatus();
}

CallContext ContextOf(const ClientCore& core, absl::Duration timeout) {
  const absl::Duration given = timeout > absl::ZeroDuration() ? timeout : core.options.timeout;
  return {absl::Now() + given, nullptr};
}

// Queues a call on the client's threads. `body` is given the context to keep to.
template <typename Result>
absl::StatusOr<Operation<Result>> Start(const CorePtr& core, CallContext context,
                                        std::function<Result(const absl::Status&)> fail,
                                        std::function<Result(const CallContext&)> body) {
  Operation<Result> operation = Operation<Result>::Make(std::move(fail));
  context.cancelled = operation.cancelled();
  REPRISE_RETURN_IF_ERROR(core->executor.Submit(
      {.deadline = context.deadline,
       .run = [operation, context,
               body]() mutable { operation.Run([&] { return body(context); }); },
       .drop = [operation](const absl::Status& status) mutable { operation.Drop(status); }}));
  return operation;
}

}  // namespace

Client::Client(std::shared_ptr<ClientCore> core) : core_(std::move(core)) {}

Client::~Client() {
  core_->prefetched.Clear();
  core_->executor.Stop();
}

absl::StatusOr<std::unique_ptr<Client>> Client::CreateWith(ClientOptions options,
                                                           ClientSeams seams) {
  REPRISE_RETURN_IF_ERROR(CheckOptions(options));
  REPRISE_CHECK(seams.connect != nullptr && seams.queries != nullptr);
  return std::unique_ptr<Client>(
      new Client(std::make_shared<ClientCore>(std::move(options), std::move(seams))));
}

absl::StatusOr<std::shared_ptr<const ClientSpec>> Client::OpenSpec(const CacheSpec& spec) const {
  REPRISE_RETURN_IF_ERROR(ValidateSpec(spec));
  REPRISE_ASSIGN_OR_RETURN(const auto codec, kernels::CodecOf(spec));
  return std::make_shared<const ClientSpec>(
      ClientSpec{.spec = spec,
                 .layout = LayoutOf(spec),
                 .codec = codec,
                 .stored = kernels::StoredLayoutOf(spec, codec),
                 .fingerprint = FingerprintOf(spec)});
}

absl::StatusOr<AcquireResult> Client::Acquire(const AcquireCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckAcquire(call));
  return AcquireRun(core_, call, ContextOf(*core_, call.timeout));
}

absl::StatusOr<FetchResult> Client::Fetch(const std::shared_ptr<Run>& run, const FetchCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckFetch(*run, call));
  return FetchRun(core_, *run, call, ContextOf(*core_, call.timeout));
}

absl::StatusOr<StoreResult> Client::Store(const StoreCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckStore(call));
  const CallContext context = ContextOf(*core_, call.timeout);
  const auto ticket = core_->store_order.Enter(call.keys, call.first);
  if (absl::Status status = ticket->Wait(context.deadline); !status.ok()) {
    return StoreResult{.refused = static_cast<uint32_t>(call.keys.size()) - call.first,
                       .status = status};
  }
  return StoreChain(core_, call, context);
}

absl::StatusOr<HintAnswer> Client::Hint(const HintCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckHintCall(call));
  return HintShards(core_, call, ContextOf(*core_, call.timeout));
}

absl::StatusOr<Operation<AcquireResult>> Client::StartAcquire(AcquireCall call) {
  REPRISE_RETURN_IF_ERROR(CheckAcquire(call));
  const CallContext context = ContextOf(*core_, call.timeout);
  auto shared = std::make_shared<const AcquireCall>(std::move(call));
  const std::weak_ptr<ClientCore> weak = core_;
  return Start<AcquireResult>(
      core_, context,
      [shared](const absl::Status& status) {
        RunOrigin origin{shared->spec, shared->session, {}, shared->first_block};
        return AcquireResult{std::make_shared<Run>(std::move(origin), std::vector<Segment>(),
                                                   [](std::vector<Segment>) {}),
                             status};
      },
      [weak, shared](const CallContext& granted) {
        return AcquireRun(weak.lock(), *shared, granted);
      });
}

absl::StatusOr<Operation<FetchResult>> Client::StartFetch(std::shared_ptr<Run> run,
                                                          FetchCall call) {
  REPRISE_RETURN_IF_ERROR(CheckFetch(*run, call));
  const CallContext context = ContextOf(*core_, call.timeout);
  auto shared = std::make_shared<const FetchCall>(std::move(call));
  const std::weak_ptr<ClientCore> weak = core_;
  return Start<FetchResult>(
      core_, context, [](const absl::Status& status) { return FetchResult{.status = status}; },
      [weak, run = std::move(run), shared](const CallContext& granted) {
        return FetchRun(weak.lock(), *run, *shared, granted);
      });
}

absl::StatusOr<Operation<StoreResult>> Client::StartStore(StoreCall call) {
  REPRISE_RETURN_IF_ERROR(CheckStore(call));
  const CallContext context = ContextOf(*core_, call.timeout);
  const uint32_t wanted = static_cast<uint32_t>(call.keys.size()) - call.first;
  // Queued in the order of their tickets: a store must not wait for one that is queued behind it.
  absl::MutexLock lock(&core_->store_start_mu);
  const auto ticket = core_->store_order.Enter(call.keys, call.first);
  auto shared = std::make_shared<const StoreCall>(std::move(call));
  const std::weak_ptr<ClientCore> weak = core_;
  const auto fail = [wanted](const absl::Status& status) {
    return StoreResult{.refused = wanted, .status = status};
  };
  return Start<StoreResult>(
      core_, context, fail, [weak, shared, ticket, fail](const CallContext& granted) {
        if (absl::Status status = ticket->Wait(granted.deadline); !status.ok()) return fail(status);
        return StoreChain(weak.lock(), *shared, granted);
      });
}

absl::StatusOr<Operation<HintAnswer>> Client::StartHint(HintCall call) {
  REPRISE_RETURN_IF_ERROR(CheckHintCall(call));
  const CallContext context = ContextOf(*core_, call.timeout);
  auto shared = std::make_shared<const HintCall>(std::move(call));
  const std::weak_ptr<ClientCore> weak = core_;
  return Start<HintAnswer>(
      core_, context, [](const absl::Status& status) { return HintAnswer{.status = status}; },
      [weak, shared](const CallContext& granted) {
        return HintShards(weak.lock(), *shared, granted);
      });
}

absl::Status Client::Prefetch(AcquireCall call) {
  if (call.keys.empty()) return absl::OkStatus();
  REPRISE_RETURN_IF_ERROR(CheckAcquire(call));
  const CallContext context = ContextOf(*core_, call.timeout);
  core_->counters.prefetches += 1;
  const std::weak_ptr<ClientCore> weak = core_;
  return core_->executor.Submit(
      {.deadline = context.deadline,
       .run = [weak, context, call = std::move(call)] { PrefetchRun(weak.lock(), call, context); },
       .drop = [](const absl::Status&) {}});
}

absl::Status Client::NotePrefill(const ClientSpec& spec, uint64_t tokens, absl::Duration time) {
  if (time <= absl::ZeroDuration()) {
    return Misuse("PREFILL_TIME", absl::StrCat("time is ", absl::FormatDuration(time),
                                               ": give what computing the tokens took"));
  }
  core_->prefill.Add(spec.fingerprint, tokens, time);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ShardExplanation>> Client::Explain(const ExplainCall& call) {
  if (call.keys.empty())
    return Misuse("KEYS_UNSET", "keys is empty: give the keys of the prompt's blocks");
  const CallContext context = ContextOf(*core_, call.timeout);
  std::vector<ShardExplanation> explanations;
  for (ShardTarget& target :
       core_->routes.AllShards(TryDeadline(absl::Now(), context.deadline, 2))) {
    explanations.push_back({std::move(target), absl::OkStatus(), Explanation()});
  }
  std::vector<std::function<void()>> tasks;
  for (ShardExplanation& one : explanations) {
    tasks.push_back([this, &one, &call, &context] {
      auto answer = core_->queries->Explain(
          one.shard.address, {call.fingerprint, call.keys, call.tokens}, context.deadline);
      one.status = answer.status();
      if (answer.ok()) one.explanation = *std::move(answer);
    });
  }
  core_->executor.RunAll(std::move(tasks));
  return explanations;
}

const Counters& Client::counters() const {
  return core_->counters;
}
std::vector<ShardView> Client::Shards() const {
  return core_->shards.Views();
}
uint64_t Client::staging_bytes() const {
  return core_->staging.capacity_bytes();
}

}  // namespace reprise::client
