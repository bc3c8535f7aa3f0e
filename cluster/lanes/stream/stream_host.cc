#include "cluster/lanes/stream/stream_host.h"

#include <algorithm>
#include <array>
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

class ReadReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  ReadReactor(absl::StatusOr<std::vector<PinnedBytes>> blocks, uint32_t first_block,
              std::shared_ptr<const void> hold)
      : hold_(std::move(hold)), first_block_(first_block) {
    if (!blocks.ok()) {
      Finish(wire::ToGrpcStatus(blocks.status()));
      return;
    }
    blocks_ = *std::move(blocks);
    SendNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the reader is gone"));
      return;
    }
    SendNext();
  }

  void OnDone() override { delete this; }

 private:
  void SendNext() {
    if (block_ == blocks_.size()) {
      Finish(grpc::Status::OK);
      return;
    }
    PinnedBytes& block = blocks_[block_];
    const uint64_t bytes =
        std::min<uint64_t>(limits::kStreamChunkBytes, block.bytes.size() - offset_bytes_);
    const EncodedHeader header =
        EncodeReadResponseHeader({.block = first_block_ + static_cast<uint32_t>(block_),
                                  .offset_bytes = offset_bytes_,
                                  .data_bytes = bytes});
    const std::array<grpc::Slice, 2> slices = {
        grpc::Slice(header.bytes.data(), header.size),
        ToSlice(block.bytes.subspan(offset_bytes_, bytes), block.pin)};
    message_ = grpc::ByteBuffer(slices.data(), slices.size());
    offset_bytes_ += bytes;
    if (offset_bytes_ == block.bytes.size()) {
      block.pin.reset();
      offset_bytes_ = 0;
      ++block_;
    }
    StartWrite(&message_);
  }

  const std::shared_ptr<const void> hold_;
  const uint32_t first_block_;
  std::vector<PinnedBytes> blocks_;
  size_t block_ = 0;
  uint64_t offset_bytes_ = 0;
  grpc::ByteBuffer message_;
};

class WriteReactor final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  WriteReactor(LaneHost& host, grpc::ByteBuffer* response, WriteGuard guard)
      : hold_(std::move(guard.hold)), filler_(host, std::move(guard.admit)), response_(response) {
    StartRead(&message_);
  }

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

  const std::shared_ptr<const void> hold_;
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
  return new ReadReactor(refusal, 0, nullptr);
}

grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseWrite(const absl::Status& refusal) {
  return new RefusingReader(refusal);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ServeRead(LaneHost& host,
                                                      const v1::ReadRequest& request,
                                                      std::shared_ptr<const void> hold) {
  return new ReadReactor(
      host.OpenRead(AttachmentId(request.attachment_id()), LeaseId(request.lease_id()),
                    request.first_block(), request.blocks()),
      request.first_block(), std::move(hold));
}

grpc::ServerReadReactor<grpc::ByteBuffer>* ServeWrite(LaneHost& host, grpc::ByteBuffer* response,
                                                      WriteGuard guard) {
  return new WriteReactor(host, response, std::move(guard));
}

}  // namespace reprise::lanes
