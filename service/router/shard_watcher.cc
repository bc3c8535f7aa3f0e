#include "service/router/shard_watcher.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/wire/channel.h"
#include "proto/wire/events.h"

namespace reprise::router {

// One WatchBlocks call.
class ShardWatcher::Feed final : public grpc::ClientReadReactor<v1::WatchBlocksResponse> {
 public:
  Feed(ShardWatcher& watcher, FeedId id)
      : watcher_(watcher), id_(id), last_heard_nanos_(absl::ToUnixNanos(watcher.clock_.Now())) {}

  void Start() {
    watcher_.stub_->async()->WatchBlocks(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  absl::Time last_heard() const {
    return absl::FromUnixNanos(last_heard_nanos_.load(std::memory_order_relaxed));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone says why
    heard_ = true;
    const absl::Time now = watcher_.clock_.Now();
    last_heard_nanos_.store(absl::ToUnixNanos(now), std::memory_order_relaxed);
    const absl::StatusOr<wire::WatchedMessage> message = wire::FromMessage(message_);
    FeedResult result = FeedResult::kOver;
    if (message.ok()) {
      result = std::visit(
          [&](const auto& what) {
            return watcher_.engine_.Apply(id_, message->sequence, what, now);
          },
          message->what);
    }
    // Reading on is what makes gRPC end a call that was cancelled.
    if (result == FeedResult::kOver) Cancel();
    StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override { watcher_.Ended(status, heard_); }

 private:
  ShardWatcher& watcher_;
  const FeedId id_;
  grpc::ClientContext context_;
  const v1::WatchBlocksRequest request_;
  v1::WatchBlocksResponse message_;
  bool heard_ = false;
  std::atomic<int64_t> last_heard_nanos_;
};

ShardWatcher::ShardWatcher(RouterEngine& engine, const Clock& clock, cluster::Member member,
                           ShardWatcherOptions options)
    : engine_(engine),
      clock_(clock),
      member_(std::move(member)),
      options_(std::move(options)),
      stub_(v1::ShardService::NewStub(wire::MakeChannel(member_.address, options_.credentials))),
      retry_(limits::kWatchRetryMin) {}

ShardWatcher::~ShardWatcher() {
  absl::MutexLock lock(&mu_);
  next_attempt_ = absl::InfiniteFuture();
  if (feed_ != nullptr) feed_->Cancel();
  const auto over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return feed_ == nullptr; };
  mu_.Await(absl::Condition(&over));
}

void ShardWatcher::Tick() {
  absl::MutexLock lock(&mu_);
  const absl::Time now = clock_.Now();
  if (feed_ != nullptr) {
    if (now - feed_->last_heard() > limits::kWatchSilenceMax) feed_->Cancel();
    return;
  }
  if (now < next_attempt_) return;
  const FeedId id = engine_.BeginFeed(member_.id);
  if (!id) return;
  feed_ = std::make_unique<Feed>(*this, id);
  feed_->Start();
}

// Runs on a gRPC thread inside the feed's last callback, which may free the feed.
void ShardWatcher::Ended(const grpc::Status& status, bool heard) {
  std::string line;
  {
    absl::MutexLock lock(&mu_);
    if (heard) {
      retry_ = limits::kWatchRetryMin;
      complained_ = false;
    }
    if (next_attempt_ != absl::InfiniteFuture()) {
      next_attempt_ = clock_.Now() + retry_;
      if (!complained_) {
        line = absl::StrCat("shard ", member_.id.name, " at ", member_.address,
                            heard ? ": the feed ended, watching anew: " : ": no feed, trying on: ",
                            status.error_message());
      }
      complained_ = true;
    }
    retry_ = std::min(2 * retry_, limits::kWatchRetryMax);
  }
  if (!line.empty() && options_.log) options_.log(line);
  absl::MutexLock lock(&mu_);
  feed_.reset();
}

}  // namespace reprise::router
