#include "service/shard/handlers/byte_streams.h"

#include "proto/types/clock.h"

namespace reprise::shard {

std::shared_ptr<ByteStreams::Token> ByteStreams::Add(grpc::CallbackServerContext* context) {
  absl::MutexLock lock(&mu_);
  const uint64_t number = next_++;
  streams_[number] = {.context = context, .start = MonotonicClock().Now()};
  return std::make_shared<Token>(shared_from_this(), number);
}

void ByteStreams::CancelOf(AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  for (auto& [number, stream] : streams_) {
    if (stream.attachment == attachment) stream.context->TryCancel();
  }
}

void ByteStreams::CancelOlderThan(absl::Time start) {
  absl::MutexLock lock(&mu_);
  for (auto& [number, stream] : streams_) {
    if (stream.start < start) stream.context->TryCancel();
  }
}

void ByteStreams::Remove(uint64_t number) {
  absl::MutexLock lock(&mu_);
  streams_.erase(number);
}

void ByteStreams::SetAttachment(uint64_t number, AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  const auto it = streams_.find(number);
  if (it != streams_.end()) it->second.attachment = attachment;
}

}  // namespace reprise::shard
