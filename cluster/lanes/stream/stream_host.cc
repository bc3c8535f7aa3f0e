#include "cluster/lanes/stream/stream_host.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/stream/message_pieces.h"
#include "cluster/lanes/stream/slot_filler.h"
#include "cluster/lanes/stream/wire_codec.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "proto/wire/status.h"

namespace reprise::lanes {
namespace {

// The bytes as a slice that keeps its slot pinned until gRPC drops it.
grpc::Slice ToSlice(std::span<const uint8_t> bytes, const std::shared_ptr<const void>& pin) {
  return grpc::Slice(
      const_cast<uint8_t*>(bytes.data()), bytes.size(),
      [](void* held) { delete static_cast<std::shared_ptr<const void>*>(held); },
      new std::shared_ptr<const void>(pin));
}

class RefusingWriter final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusingWriter(const absl::Status& refusal) { Finish(wire::ToGrpcStatus(refusal)); }
  void OnDone() override { delete this; }
};

// One message is on its way while the next one is made ready. Whoever is done last sends.
class ReadReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  struct Job {
    LaneHost& host;
    std::vector<PinnedBytes> blocks;
    uint32_t first_block = 0;
    ReadGuard guard;
    std::shared_ptr<const void> file_ticket;  // of admit_file
  };
  explicit ReadReactor(Job job) : job_(std::move(job)) {
    if (job_.guard.staging == nullptr) job_.guard.staging = ChunkPool::Create();
    if (MakeReady()) Run();
  }

  void OnWriteDone(bool ok) override {
    reader_gone_ = !ok;
    if (ok && sent_ends_bytes_ > 0) job_.host.ReadOut(1, sent_ends_bytes_);
    if (IsLast()) Run();
  }

  // What waits for the disk need not be read any more.
  void OnCancel() override { cancelled_.store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

 private:
  void Run() {
    do {
      if (!Send()) return;
    } while (MakeReady());
  }

  // False: the call ends, and this may be gone.
  bool Send() {
    if (reader_gone_) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the reader is gone"));
      return false;
    }
    if (!ready_.ok() || !ready_->has_value()) {
      Finish(wire::ToGrpcStatus(ready_.status()));
      return false;
    }
    message_ = **std::move(ready_);
    sent_ends_bytes_ = std::exchange(ready_ends_bytes_, 0);
    awaited_.store(2, std::memory_order_relaxed);
    StartWrite(&message_);
    return true;
  }

  // True when the next message is to be sent now. Else somebody else will, and this may be gone.
  bool MakeReady() {
    const bool in_file =
        block_ < job_.blocks.size() && job_.blocks[block_].memory == MemoryKind::kFile;
    if (in_file && job_.guard.wait_elsewhere) {
      job_.guard.wait_elsewhere([this] {
        ready_ = NextMessage();
        if (IsLast()) Run();
      });
      return false;
    }
    ready_ = NextMessage();
    return IsLast();
  }

  bool IsLast() { return awaited_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

  // nullopt: all was sent.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> NextMessage() {
    if (block_ == job_.blocks.size()) return std::nullopt;
    if (cancelled_.load(std::memory_order_relaxed)) {
      return absl::CancelledError("the reader is gone");
    }
    PinnedBytes& block = job_.blocks[block_];
    const uint64_t bytes =
        std::min<uint64_t>(limits::kStreamChunkBytes, block.bytes.size() - offset_bytes_);
    const EncodedHeader header =
        EncodeReadResponseHeader({.block = job_.first_block + static_cast<uint32_t>(block_),
                                  .offset_bytes = offset_bytes_,
                                  .data_bytes = bytes});
    REPRISE_ASSIGN_OR_RETURN(const grpc::Slice data,
                             Payload(block, block.bytes.subspan(offset_bytes_, bytes)));
    const std::array<grpc::Slice, 2> slices = {grpc::Slice(header.bytes.data(), header.size), data};
    offset_bytes_ += bytes;
    if (offset_bytes_ == block.bytes.size()) {
      ready_ends_bytes_ = offset_bytes_;
      block.pin.reset();
      offset_bytes_ = 0;
      ++block_;
    }
    return grpc::ByteBuffer(slices.data(), slices.size());
  }

  absl::StatusOr<grpc::Slice> Payload(const PinnedBytes& block, std::span<const uint8_t> bytes) {
    if (block.memory == MemoryKind::kHost) return ToSlice(bytes, block.pin);
    ChunkPool& staging = *job_.guard.staging;
    ChunkPool::Chunk chunk = staging.Take();
    absl::Status copied = job_.host.CopyToHost(bytes, {chunk.get(), bytes.size()});
    if (copied.ok()) return staging.ToSlice(std::move(chunk), bytes.size());
    staging.Return(std::move(chunk));
    return copied;
  }

  Job job_;
  // Of what is made ready.
  size_t block_ = 0;
  uint64_t offset_bytes_ = 0;
  uint64_t ready_ends_bytes_ = 0;  // the message is a block's last; that block's bytes
  absl::StatusOr<std::optional<grpc::ByteBuffer>> ready_;
  // Of what is on its way.
  grpc::ByteBuffer message_;
  uint64_t sent_ends_bytes_ = 0;
  bool reader_gone_ = false;

  std::atomic<bool> cancelled_ = false;
  std::atomic<int> awaited_ = 1;  // of the two; at first nothing is on its way
};

class WriteReactor final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  WriteReactor(LaneHost& host, grpc::ByteBuffer* response, WriteGuard guard)
      : hold_(std::move(guard.hold)),
        staging_(guard.staging != nullptr ? std::move(guard.staging) : ChunkPool::Create()),
        filler_(host, std::move(guard.admit), [this] { return Staged(); }),
        response_(response) {
    StartRead(&message_);
  }
  ~WriteReactor() override { staging_->Return(std::move(chunk_)); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      FinishWhole();
      return;
    }
    const absl::Status taken = filler_.Take(MessagePieces(message_).get());
    message_.Clear();
    if (!taken.ok()) {
      Finish(wire::ToGrpcStatus(taken));
      return;
    }
    StartRead(&message_);
  }

  void OnDone() override { delete this; }

 private:
  void FinishWhole() {
    const absl::Status whole = filler_.Finish();
    if (whole.ok()) {
      v1::WriteResponse response;
      response.set_bytes_written(filler_.bytes_written());
      const grpc::Slice slice(response.SerializeAsString());
      *response_ = grpc::ByteBuffer(&slice, 1);
    }
    Finish(wire::ToGrpcStatus(whole));
  }

  std::span<uint8_t> Staged() {
    if (chunk_ == nullptr) chunk_ = staging_->Take();
    return {chunk_.get(), limits::kStreamChunkBytesMax};
  }

  const std::shared_ptr<const void> hold_;
  const std::shared_ptr<ChunkPool> staging_;
  ChunkPool::Chunk chunk_;
  SlotFiller filler_;
  grpc::ByteBuffer* const response_;
  grpc::ByteBuffer message_;
};

class RefusingReader final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  explicit RefusingReader(const absl::Status& refusal) { Finish(wire::ToGrpcStatus(refusal)); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* RefuseRead(const absl::Status& refusal) {
  return new RefusingWriter(refusal);
}

grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseWrite(const absl::Status& refusal) {
  return new RefusingReader(refusal);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeRead(LaneHost& host,
                                                      const v1::ReadRequest& request,
                                                      ReadGuard guard) {
  absl::StatusOr<std::vector<PinnedBytes>> blocks =
      host.OpenRead(AttachmentId(request.attachment_id()), LeaseId(request.lease_id()),
                    request.first_block(), request.blocks());
  if (!blocks.ok()) return RefuseRead(blocks.status());
  const bool in_file = std::any_of(blocks->begin(), blocks->end(), [](const PinnedBytes& block) {
    return block.memory == MemoryKind::kFile;
  });
  std::shared_ptr<const void> file_ticket;
  if (in_file && guard.admit_file) {
    absl::StatusOr<std::shared_ptr<const void>> admitted = guard.admit_file();
    if (!admitted.ok()) return RefuseRead(admitted.status());
    file_ticket = *std::move(admitted);
  }
  return new ReadReactor({.host = host,
                          .blocks = *std::move(blocks),
                          .first_block = request.first_block(),
                          .guard = std::move(guard),
                          .file_ticket = std::move(file_ticket)});
}

grpc::ServerReadReactor<grpc::ByteBuffer>* ServeWrite(LaneHost& host, grpc::ByteBuffer* response,
                                                      WriteGuard guard) {
  return new WriteReactor(host, response, std::move(guard));
}

}  // namespace reprise::lanes
