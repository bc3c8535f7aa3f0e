// A received gRPC message as the pieces in which it lies, without a copy.
//
// Invariants: the pieces stay valid while this object lives.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <span>
#include <vector>

#include "cluster/lanes/stream/wire_codec.h"

namespace reprise::lanes {

class MessagePieces {
 public:
  explicit MessagePieces(const grpc::ByteBuffer& message) {
    if (!message.Dump(&slices_).ok()) slices_.clear();
    pieces_.reserve(slices_.size());
    for (const grpc::Slice& slice : slices_) pieces_.emplace_back(slice.begin(), slice.size());
  }
  MessagePieces(const MessagePieces&) = delete;
  MessagePieces& operator=(const MessagePieces&) = delete;

  Pieces get() const { return pieces_; }

 private:
  std::vector<grpc::Slice> slices_;
  std::vector<std::span<const uint8_t>> pieces_;
};

}  // namespace reprise::lanes
