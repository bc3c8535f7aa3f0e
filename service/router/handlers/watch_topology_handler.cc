#include "service/router/handlers/watch_topology_handler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/status.h"
#include "service/router/handlers/messages.h"

namespace reprise::router {

// Deletes itself when gRPC is done with it, which is when it leaves the handler's set.
class TopologyStream final : public grpc::ServerWriteReactor<v1::WatchTopologyResponse> {
 public:
  explicit TopologyStream(WatchTopologyHandler& handler) : handler_(handler) {}

  // Sends `topology` now, or after the message that is on its way, unless a newer one came.
  void Offer(const v1::WatchTopologyResponse& topology) {
    absl::MutexLock lock(&mu_);
    if (ended_ || topology.epoch() <= newest_epoch_) return;
    newest_epoch_ = topology.epoch();
    next_ = topology;
    waiting_ = true;
    if (!writing_) WriteNext();
  }

  void End(const absl::Status& why) {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    ended_ = true;
    Finish(wire::ToGrpcStatus(why));
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (ended_) return;
    if (!ok) {
      ended_ = true;
      Finish(grpc::Status::CANCELLED);
    } else if (waiting_) {
      WriteNext();
    }
  }

  void OnCancel() override { End(absl::CancelledError("the watcher is gone")); }

  void OnDone() override {
    {
      absl::MutexLock lock(&handler_.mu_);
      handler_.streams_.erase(this);
    }
    delete this;
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    on_its_way_ = std::move(next_);
    waiting_ = false;
    writing_ = true;
    StartWrite(&on_its_way_);
  }

  WatchTopologyHandler& handler_;
  absl::Mutex mu_;
  v1::WatchTopologyResponse on_its_way_;  // gRPC reads it while writing_
  v1::WatchTopologyResponse next_ ABSL_GUARDED_BY(mu_);
  uint64_t newest_epoch_ ABSL_GUARDED_BY(mu_) = 0;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

v1::WatchTopologyResponse WatchTopologyHandler::Newest() const {
  return ToMessage(engine_.Topology(clock_.Now()));
}

grpc::ServerWriteReactor<v1::WatchTopologyResponse>* WatchTopologyHandler::Open(
    const absl::Status& caller) {
  auto* stream = new TopologyStream(*this);
  absl::MutexLock lock(&mu_);
  streams_.insert(stream);
  if (!caller.ok() || !end_.ok()) {
    stream->End(caller.ok() ? end_ : caller);
  } else if (streams_.size() > limits::kTopologyWatchersMax) {
    stream->End(Refusal(absl::StatusCode::kResourceExhausted, "TOPOLOGY_WATCHERS",
                        absl::StrCat("kTopologyWatchersMax = ", limits::kTopologyWatchersMax,
                                     " watchers are here already: ask another router")));
  } else {
    stream->Offer(Newest());
  }
  return stream;
}

void WatchTopologyHandler::Tick() {
  absl::MutexLock lock(&mu_);
  if (engine_.epoch() == told_) return;
  const v1::WatchTopologyResponse newest = Newest();
  told_ = Epoch(newest.epoch());
  for (TopologyStream* stream : streams_) stream->Offer(newest);
}

void WatchTopologyHandler::EndAll(const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  end_ = why;
  for (TopologyStream* stream : streams_) stream->End(why);
}

}  // namespace reprise::router
