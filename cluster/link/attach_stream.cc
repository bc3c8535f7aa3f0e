#include "cluster/link/attach_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/deadline.h"
#include "proto/wire/status.h"

namespace reprise::cluster {

AttachStream::AttachStream(const v1::AttachRequest::Hello& hello) {
  *request_.mutable_hello() = hello;
}

std::shared_ptr<AttachStream> AttachStream::Start(const std::shared_ptr<grpc::Channel>& channel,
                                                  const v1::AttachRequest::Hello& hello) {
  std::shared_ptr<AttachStream> stream(new AttachStream(hello));
  {
    absl::MutexLock lock(&stream->mu_);
    stream->self_ = stream;
  }
  const std::unique_ptr<v1::ShardService::Stub> stub = v1::ShardService::NewStub(channel);
  stub->async()->Attach(&stream->context_, stream.get());
  // The timer writes from outside of gRPC's callbacks.
  stream->AddHold();
  stream->StartRead(&stream->response_);
  stream->StartWrite(&stream->request_);
  stream->StartCall();
  return stream;
}

absl::StatusOr<v1::AttachResponse::Welcome> AttachStream::AwaitWelcome(absl::Time deadline) {
  {
    absl::MutexLock lock(&mu_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return welcomed_ || done_; };
    mu_.AwaitWithDeadline(absl::Condition(&settled), deadline);
    if (welcomed_) return welcome_;
    if (done_ && !status_.ok()) return wire::FromGrpcStatus(status_);
    if (done_) {
      return Refusal(absl::StatusCode::kUnavailable, "ATTACH_ENDED",
                     "the shard ended Attach without a welcome: try another shard");
    }
  }
  Stop();
  return Refusal(absl::StatusCode::kDeadlineExceeded, "ATTACH_DEADLINE",
                 "the shard did not answer Attach by the deadline: try another shard");
}

void AttachStream::Stop() {
  End(/*cancel=*/true);
}

void AttachStream::OnEnd(std::function<void()> ended) {
  {
    absl::MutexLock lock(&mu_);
    if (!ended_) {
      on_end_ = std::move(ended);
      return;
    }
  }
  ended();
}

void AttachStream::OnReadDone(bool ok) {
  if (!ok) {
    // The shard has ended the call: to cancel it now could hide what it said of that.
    End(/*cancel=*/false);
    return;
  }
  absl::MutexLock lock(&mu_);
  if (ended_) return;
  last_heard_ = MonotonicClock().Now();
  switch (response_.message_case()) {
    case v1::AttachResponse::kWelcome:
      TakeWelcome();
      break;
    case v1::AttachResponse::kDraining:
      draining_.store(true, std::memory_order_release);
      break;
    case v1::AttachResponse::kKeepAlive:
    case v1::AttachResponse::MESSAGE_NOT_SET:
      break;
  }
  StartRead(&response_);
}

void AttachStream::TakeWelcome() {
  if (welcomed_) return;
  welcome_ = response_.welcome();
  // Twice as often as asked for: one late beat must not cost the leases.
  interval_ = std::clamp(absl::Milliseconds(welcome_.keep_alive_interval_ms()),
                         absl::Milliseconds(2), limits::kKeepAliveInterval * 10);
  welcomed_ = true;
  alive_.store(true, std::memory_order_release);
  ArmTimer();
}

void AttachStream::OnWriteDone(bool ok) {
  // A write that failed found the call over. Its last words may still wait to be read, and then the
  // read fails too; until then nothing more is written.
  if (!ok) return;
  absl::MutexLock lock(&mu_);
  writing_ = false;
}

void AttachStream::OnDone(const grpc::Status& status) {
  std::shared_ptr<AttachStream> self;
  absl::MutexLock lock(&mu_);
  alive_.store(false, std::memory_order_release);
  status_ = status;
  done_ = true;
  self = std::move(self_);
}

void AttachStream::ArmTimer() {
  // A new alarm each time: setting one again from within its own callback would destroy that
  // callback.
  timer_ = std::make_unique<grpc::Alarm>();
  timer_->Set(wire::ToGprDeadline(absl::Now() + interval_ / 2),
              [self = shared_from_this()](bool expired) { self->OnTimer(expired); });
}

void AttachStream::OnTimer(bool expired) {
  {
    absl::MutexLock lock(&mu_);
    if (!expired || ended_) return;
    if (MonotonicClock().Now() - last_heard_ <= interval_ * limits::kKeepAlivesMissedMax) {
      if (!writing_) {
        writing_ = true;
        request_.mutable_keep_alive();
        StartWrite(&request_);
      }
      ArmTimer();
      return;
    }
  }
  Stop();
}

void AttachStream::End(bool cancel) {
  std::unique_ptr<grpc::Alarm> timer;
  std::function<void()> on_end;
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(ended_, true)) return;
    alive_.store(false, std::memory_order_release);
    timer = std::move(timer_);
    on_end.swap(on_end_);
  }
  if (on_end) on_end();
  // Destroying it cancels it.
  timer.reset();
  if (cancel) context_.TryCancel();
  RemoveHold();
}

}  // namespace reprise::cluster
