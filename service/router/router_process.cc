#include "service/router/router_process.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/serving.h"

namespace reprise::router {

RouterProcess::RouterProcess(RouterProcessOptions options)
    : options_(std::move(options)),
      started_(MonotonicClock().Now()),
      // Begins above what an earlier router on this machine reached.
      engine_({.first_epoch = Epoch(static_cast<uint64_t>(absl::ToUnixMillis(absl::Now())))}),
      service_(engine_, *options_.membership, MonotonicClock(), options_.access) {}

absl::StatusOr<std::unique_ptr<RouterProcess>> RouterProcess::Start(RouterProcessOptions options) {
  REPRISE_CHECK(options.membership != nullptr);
  REPRISE_RETURN_IF_ERROR(
      wire::CheckListenAddress(options.listen, options.insecure, options.credentials));
  std::unique_ptr<RouterProcess> process(new RouterProcess(std::move(options)));
  // Members first: whoever is answered is answered with them.
  process->watch_ = process->options_.membership->Watch(
      [process = process.get()](const auto& members) { process->OnMembers(members); });
  wire::CallEnded call_ended;
  if (process->options_.time_calls) {
    process->calls_ = std::make_unique<telemetry::RpcDurations>(
        wire::MethodsOf(*v1::LocateRequest::descriptor()->file()));
    call_ended = [calls = process->calls_.get()](absl::string_view method, absl::StatusCode code,
                                                 absl::Duration took) {
      calls->Ended(method, code, took);
    };
  }
  REPRISE_ASSIGN_OR_RETURN(wire::Listening listening,
                           wire::Listen({.listen = process->options_.listen,
                                         .services = {&process->service_},
                                         .name = v1::RouterService::service_full_name(),
                                         .credentials = process->options_.credentials,
                                         .call_ended = std::move(call_ended)}));
  process->server_ = std::move(listening.server);
  process->address_ = std::move(listening.address);
  process->ticker_ = std::thread([process = process.get()] { process->TickLoop(); });
  return process;
}

RouterProcess::~RouterProcess() {
  Stop(absl::ZeroDuration());
}

void RouterProcess::Stop(absl::Duration grace) {
  watch_.reset();
  draining_.store(true, std::memory_order_relaxed);
  ticks_.Stop();
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return;
    stopping_ = true;
  }
  const absl::Time end = absl::Now() + grace;
  if (server_ != nullptr) {
    wire::SetNotServing(*server_, v1::RouterService::service_full_name());
    service_.EndStreams(Refusal(absl::StatusCode::kUnavailable, "ROUTER_STOPS",
                                "this router stops: ask another one"));
    server_->Shutdown(absl::ToChronoTime(std::max(end, absl::Now() + limits::kStopFlush)));
    server_->Wait();
  }
  if (ticker_.joinable()) ticker_.join();
  watchers_.clear();
}

void RouterProcess::OnMembers(const std::vector<cluster::Member>& members) {
  engine_.SetMembers(members, MonotonicClock().Now());
  absl::MutexLock lock(&mu_);
  members_ = members;
  members_new_ = true;
}

// A member that is new, or that moved, gets a new watcher; one that left loses its own.
void RouterProcess::FitWatchers() {
  std::vector<cluster::Member> members;
  {
    absl::MutexLock lock(&mu_);
    if (!members_new_) return;
    members_new_ = false;
    members = members_;
  }
  std::map<ShardId, std::unique_ptr<ShardWatcher>> fitting;
  for (const cluster::Member& member : members) {
    std::unique_ptr<ShardWatcher>& watcher = fitting[member.id];
    if (const auto it = watchers_.find(member.id);
        it != watchers_.end() && it->second->member().address == member.address) {
      watcher = std::move(it->second);
      watchers_.erase(it);
      continue;
    }
    watchers_.erase(member.id);  // its feed ends before the next one begins
    watcher = std::make_unique<ShardWatcher>(
        engine_, MonotonicClock(), member,
        ShardWatcherOptions{.credentials = options_.credentials, .log = options_.log});
  }
  watchers_ = std::move(fitting);
  if (options_.log) options_.log(absl::StrCat("watching ", watchers_.size(), " shards"));
}

RouterSnapshot RouterProcess::Snapshot() const {
  const absl::Time now = MonotonicClock().Now();
  return {.engine = engine_.Describe(now),
          .membership = options_.membership->State(),
          .topology_watchers = service_.topology_watchers(),
          .version = REPRISE_VERSION,
          .address = address_,
          .uptime = now - started_,
          .draining = draining_.load(std::memory_order_relaxed)};
}

// Those that know the members are not to be replaced by those that cannot learn them.
std::string RouterProcess::WhyOfNoUse() const {
  const std::string trouble = options_.membership->State().trouble;
  if (trouble.empty() || !options_.membership->Members().empty()) return {};
  return absl::StrCat("no members are known yet: ", trouble);
}

telemetry::StatusSource RouterProcess::status() const {
  return telemetry::SourceOf(
      {.component = "router",
       .version = REPRISE_VERSION,
       .address = address_,
       .calls = calls_.get(),
       .ticks = &ticks_,
       .certificate_expires = wire::ExpiryOf(options_.credentials),
       .draining = [this] { return draining_.load(std::memory_order_relaxed); },
       .unready = [this] { return WhyOfNoUse(); },
       .metrics = [this] { return ToFamilies(Snapshot()); },
       .page = [this] { return ToPage(Snapshot()); }});
}

void RouterProcess::TickLoop() {
  absl::MutexLock lock(&mu_);
  do {
    mu_.Unlock();
    FitWatchers();
    engine_.Tick(MonotonicClock().Now());
    for (const auto& [id, watcher] : watchers_) watcher->Tick();
    service_.Tick();
    ticks_.Ticked();
    mu_.Lock();
  } while (!mu_.AwaitWithTimeout(absl::Condition(&stopping_), limits::kRouterTickInterval));
}

}  // namespace reprise::router
