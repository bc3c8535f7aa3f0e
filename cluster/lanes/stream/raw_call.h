// One streaming gRPC call whose messages are raw bytes, driven by the thread that uses it.
//
// Invariants: at most one read and one write are under way; whatever is under way when the call is
// destroyed is cancelled and waited for, so that gRPC holds no pointer of the caller's afterwards.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace reprise::lanes {

class RawCall {
 public:
  // `method` is the full name, e.g. "/reprise.v1.ShardService/Read". The call is over at
  // `deadline`.
  RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
          absl::Time deadline);
  ~RawCall();
  RawCall(const RawCall&) = delete;
  RawCall& operator=(const RawCall&) = delete;

  // Hands `message` over. False when the call is over; Finish() then says why.
  bool Write(const grpc::ByteBuffer& message);
  // Like Write, and says that no message follows.
  bool WriteLast(const grpc::ByteBuffer& message);
  bool WritesDone();

  // Asks for the next message; `message` must live until FinishRead() or Finish() has returned.
  void StartRead(grpc::ByteBuffer* message);
  // Waits for it. False at the end of the stream.
  bool FinishRead();

  void Cancel() { context_.TryCancel(); }
  // How the call ended. Waits for the other end, or the deadline.
  absl::Status Finish();

 private:
  enum Op : uint8_t { kStart, kWrite, kRead, kFinish, kOps };

  void Begin(Op op) { under_way_[op] = true; }
  // Waits for `op`; false when it failed.
  bool Wait(Op op);
  static void* Tag(Op op) { return reinterpret_cast<void*>(static_cast<uintptr_t>(op) + 1); }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  std::array<bool, kOps> under_way_{};
  std::array<bool, kOps> succeeded_{};
  bool finished_ = false;
  grpc::Status status_;
};

}  // namespace reprise::lanes
