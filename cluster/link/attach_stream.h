// The client's end of ShardService.Attach: says hello, keeps the leases alive, and notices when the
// shard is gone.
//
// Invariants: alive() is true from the welcome on until the stream ends, the shard was silent for
// kKeepAlivesMissedMax intervals, or Stop(); then it is false for good. gRPC and its timer own the
// object while they need it, so that nobody ever waits for them.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::cluster {

class AttachStream final : public grpc::ClientBidiReactor<v1::AttachRequest, v1::AttachResponse>,
                           public std::enable_shared_from_this<AttachStream> {
 public:
  static std::shared_ptr<AttachStream> Start(const std::shared_ptr<grpc::Channel>& channel,
                                             const v1::AttachRequest::Hello& hello);

  // UNAVAILABLE or what the shard refused with; DEADLINE_EXCEEDED when no welcome came. After a
  // failure the stream is stopped.
  absl::StatusOr<v1::AttachResponse::Welcome> AwaitWelcome(absl::Time deadline);

  bool alive() const { return alive_.load(std::memory_order_acquire); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }
  // As gRPC calls the shard's end of the connection. REQUIRES: the welcome came.
  std::string peer() const { return context_.peer(); }

  // Ends the stream, and with it leases and reservations. Returns at once.
  void Stop();

  // `ended` is called when the stream ends, or now when it has ended: once, on whatever thread
  // finds out, with no lock held. It returns at once.
  void OnEnd(std::function<void()> ended);

 private:
  explicit AttachStream(const v1::AttachRequest::Hello& hello);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  void TakeWelcome() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ArmTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnTimer(bool expired);
  // From here on nothing is sent. `cancel`: nor is anything wanted from the shard any more.
  void End(bool cancel) ABSL_LOCKS_EXCLUDED(mu_);

  grpc::ClientContext context_;
  std::atomic<bool> alive_ = false;
  std::atomic<bool> draining_ = false;

  v1::AttachRequest request_;    // owned by gRPC while writing_
  v1::AttachResponse response_;  // owned by gRPC while a read is under way

  absl::Mutex mu_;
  bool welcomed_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = true;  // the hello
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  v1::AttachResponse::Welcome welcome_ ABSL_GUARDED_BY(mu_);
  absl::Duration interval_ ABSL_GUARDED_BY(mu_);
  absl::Time last_heard_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<grpc::Alarm> timer_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_end_ ABSL_GUARDED_BY(mu_);
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<AttachStream> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
};

}  // namespace reprise::cluster
