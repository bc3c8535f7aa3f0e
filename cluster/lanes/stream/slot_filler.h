// The messages of one Write call, put into the slots that they name. No gRPC in sight.
//
// Bytes for a slot in device memory go through a staging buffer, a message at a time.
//
// Invariants: bytes enter a slot only at the place where the last ones ended; a block is Written
// when it is full.
//
// Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/stream/wire_codec.h"

namespace reprise::lanes {

class SlotFiller {
 public:
  // Host memory of limits::kStreamChunkBytesMax bytes, the same each time.
  using Staging = std::function<std::span<uint8_t>()>;

  // `admit` is called once, with the attachment that the first message names; `staging` when the
  // first slot in device memory is met. REQUIRES: `host` outlives this.
  SlotFiller(LaneHost& host, std::function<absl::Status(AttachmentId)> admit, Staging staging);

  // INVALID_ARGUMENT for a message that is damaged, empty, too large, out of order or beyond its
  // block; else what `admit`, OpenWrite and Written say.
  absl::Status Take(Pieces message);
  // After the last message. INVALID_ARGUMENT when there was none, or the last block is not whole.
  absl::Status Finish();

  uint64_t bytes_written() const { return bytes_written_; }

 private:
  absl::Status CheckIds(const ChunkHeader& header);
  absl::Status OpenBlock(const ChunkHeader& header);
  absl::Status Put(Pieces message, uint64_t data_at, std::span<uint8_t> to);

  LaneHost& host_;
  const std::function<absl::Status(AttachmentId)> admit_;
  const Staging staging_;
  AttachmentId attachment_;
  ReservationId reservation_;
  uint32_t block_ = 0;
  PinnedSlot slot_;  // of block_; without bytes between blocks
  uint64_t filled_bytes_ = 0;
  uint64_t bytes_written_ = 0;
};

}  // namespace reprise::lanes
