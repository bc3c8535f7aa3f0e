// The Read and Write calls under way, so that none outlives its attachment or goes on for ever.
//
// Invariants: a call is known here while its token lives; a token never outlives its context.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::shard {

class ByteStreams : public std::enable_shared_from_this<ByteStreams> {
 public:
  static std::shared_ptr<ByteStreams> Create() {
    return std::shared_ptr<ByteStreams>(new ByteStreams);
  }

  class Token {
   public:
    Token(std::shared_ptr<ByteStreams> streams, uint64_t number)
        : streams_(std::move(streams)), number_(number) {}
    ~Token() { streams_->Remove(number_); }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;
    // Whose bytes these are, once that is known.
    void Belongs(AttachmentId attachment) { streams_->SetAttachment(number_, attachment); }

   private:
    const std::shared_ptr<ByteStreams> streams_;
    const uint64_t number_;
  };
  std::shared_ptr<Token> Add(grpc::CallbackServerContext* context);

  void CancelOf(AttachmentId attachment);
  void CancelOlderThan(absl::Time start);

 private:
  struct Stream {
    grpc::CallbackServerContext* context = nullptr;
    AttachmentId attachment;
    absl::Time start;
  };
  ByteStreams() = default;
  void Remove(uint64_t number);
  void SetAttachment(uint64_t number, AttachmentId attachment);

  absl::Mutex mu_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<uint64_t, Stream> streams_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::shard
