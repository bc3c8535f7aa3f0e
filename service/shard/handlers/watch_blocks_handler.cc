#include "service/shard/handlers/watch_blocks_handler.h"

#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "proto/types/status_macros.h"
#include "proto/wire/caller.h"
#include "proto/wire/events.h"
#include "proto/wire/status.h"
#include "service/shard/shard_peers.h"

namespace reprise::shard {

class WatchStream final : public grpc::ServerWriteReactor<v1::WatchBlocksResponse> {
 public:
  WatchStream(WatchBlocksHandler& handler, absl::StatusOr<std::unique_ptr<BlockWatch>> watch)
      : handler_(handler) {
    {
      absl::MutexLock lock(&handler_.mu_);
      handler_.streams_.insert(this);
      if (watch.ok() && !handler_.ended_.ok()) watch = handler_.ended_;
    }
    if (!watch.ok()) {
      End(watch.status());
      return;
    }
    watch_ = *std::move(watch);
    watch_->NotifyWith([this] { Pump(); });
    Pump();
  }

  void Beat() {
    {
      absl::MutexLock lock(&mu_);
      beat_due_ = true;
    }
    Pump();
  }

  void End(const absl::Status& why) {
    absl::MutexLock lock(&mu_);
    FinishWith(why);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
    }
    if (ok) Pump();
  }

  void OnCancel() override { End(absl::CancelledError("the watcher is gone")); }

  void OnDone() override {
    {
      absl::MutexLock lock(&handler_.mu_);
      handler_.streams_.erase(this);
    }
    watch_.reset();  // waits for a notification under way
    delete this;
  }

 private:
  void Pump() {
    absl::MutexLock lock(&mu_);
    if (writing_ || finished_ || watch_ == nullptr) return;
    if (std::exchange(beat_due_, false)) {
      message_ = wire::ToMessage(Heartbeat(), ++sequence_);
    } else {
      absl::StatusOr<std::optional<BlockEvent>> event = watch_->Next(absl::InfinitePast());
      if (!event.ok()) {
        FinishWith(event.status());
        return;
      }
      if (!event->has_value()) return;
      message_ = wire::ToMessage(**event, ++sequence_);
    }
    writing_ = true;
    StartWrite(&message_);
  }

  ShardHeartbeat Heartbeat() const {
    ShardHeartbeat beat{.draining = handler_.core_.draining.load(std::memory_order_acquire)};
    for (const TierUse& use : handler_.core_.engine.Describe(Tenant{}).tiers) {
      if (use.lost) continue;
      beat.used_bytes += use.used_bytes;
      beat.capacity_bytes += use.capacity_bytes;
    }
    if (handler_.core_.peers != nullptr) {
      beat.peer_bytes_per_second = handler_.core_.peers->peers().bytes_per_second();
    }
    return beat;
  }

  void FinishWith(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    Finish(wire::ToGrpcStatus(why));
  }

  WatchBlocksHandler& handler_;
  std::unique_ptr<BlockWatch> watch_;
  absl::Mutex mu_;
  v1::WatchBlocksResponse message_ ABSL_GUARDED_BY(mu_);  // gRPC's while writing_
  uint64_t sequence_ ABSL_GUARDED_BY(mu_) = 0;
  bool beat_due_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

grpc::ServerWriteReactor<v1::WatchBlocksResponse>* WatchBlocksHandler::Open(
    grpc::CallbackServerContext* context) {
  return new WatchStream(*this, WatchFor(*context));
}

absl::StatusOr<std::unique_ptr<BlockWatch>> WatchBlocksHandler::WatchFor(
    const grpc::CallbackServerContext& context) {
  REPRISE_ASSIGN_OR_RETURN(const wire::Caller caller, wire::CallerOf(context, core_.access));
  REPRISE_RETURN_IF_ERROR(wire::CheckOperates(caller, "WatchBlocks"));
  return core_.engine.Watch();
}

void WatchBlocksHandler::Beat() {
  absl::MutexLock lock(&mu_);
  for (WatchStream* stream : streams_) stream->Beat();
}

void WatchBlocksHandler::EndAll(const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  ended_ = why;
  for (WatchStream* stream : streams_) stream->End(why);
}

}  // namespace reprise::shard
