#include "cluster/lanes/stream/slot_filler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status Invalid(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

}  // namespace

SlotFiller::SlotFiller(LaneHost& host, std::function<absl::Status(AttachmentId)> admit,
                       Staging staging)
    : host_(host), admit_(std::move(admit)), staging_(std::move(staging)) {}

absl::Status SlotFiller::Take(Pieces message) {
  REPRISE_ASSIGN_OR_RETURN(const ParsedChunk chunk, ParseWriteRequest(message));
  const ChunkHeader& header = chunk.header;
  REPRISE_RETURN_IF_ERROR(CheckIds(header));
  if (header.data_bytes == 0) {
    return Invalid("DATA_EMPTY",
                   absl::StrCat("data of block ", header.block, " is empty: send 1 to ",
                                limits::kStreamChunkBytesMax, " bytes"));
  }
  if (header.data_bytes > limits::kStreamChunkBytesMax) {
    return Invalid("DATA_TOO_LARGE",
                   absl::StrCat("data of block ", header.block, " has ", header.data_bytes,
                                " bytes, more than kStreamChunkBytesMax = ",
                                limits::kStreamChunkBytesMax, ": cut the block into chunks"));
  }
  REPRISE_RETURN_IF_ERROR(OpenBlock(header));
  if (header.data_bytes > slot_.bytes.size() - filled_bytes_) {
    return Invalid(
        "BLOCK_OVERFLOW",
        absl::StrCat("data of block ", header.block, " has ", header.data_bytes,
                     " bytes at offset_bytes ", header.offset_bytes, ", beyond the block's ",
                     slot_.bytes.size(), ": send block_bytes of OpenSpec and no more"));
  }
  REPRISE_RETURN_IF_ERROR(
      Put(message, chunk.data_at, slot_.bytes.subspan(filled_bytes_, header.data_bytes)));
  filled_bytes_ += header.data_bytes;
  bytes_written_ += header.data_bytes;
  if (filled_bytes_ < slot_.bytes.size()) return absl::OkStatus();
  slot_ = {};
  return host_.Written(attachment_, reservation_, block_, std::exchange(filled_bytes_, 0));
}

absl::Status SlotFiller::Put(Pieces message, uint64_t data_at, std::span<uint8_t> to) {
  if (slot_.memory == MemoryKind::kHost) {
    CopyOut(message, data_at, to);
    return absl::OkStatus();
  }
  const std::span<uint8_t> staged = staging_().first(to.size());
  CopyOut(message, data_at, staged);
  return host_.CopyToDevice(staged, to);
}

absl::Status SlotFiller::Finish() {
  if (!attachment_) {
    return Invalid("WRITE_EMPTY", "Write got no message: send at least one with data");
  }
  if (slot_.bytes.empty()) return absl::OkStatus();
  return Invalid("BLOCK_INCOMPLETE",
                 absl::StrCat("block ", block_, " ended after ", filled_bytes_, " of ",
                              slot_.bytes.size(), " bytes: write it again, whole"));
}

absl::Status SlotFiller::CheckIds(const ChunkHeader& header) {
  if (!attachment_) {
    if (header.attachment == 0) {
      return Invalid("ATTACHMENT_UNSET",
                     "attachment_id = 0 in the first message: send the id that Attach answered");
    }
    attachment_ = AttachmentId(header.attachment);
    reservation_ = ReservationId(header.reservation);
    return admit_(attachment_);
  }
  const bool same = (header.attachment == 0 || header.attachment == attachment_.value) &&
                    (header.reservation == 0 || header.reservation == reservation_.value);
  if (same) return absl::OkStatus();
  return Invalid("WRITE_MIXED", absl::StrCat("attachment_id = ", header.attachment,
                                             " and reservation_id = ", header.reservation,
                                             " are not those of the first message: one Write "
                                             "call fills one reservation"));
}

absl::Status SlotFiller::OpenBlock(const ChunkHeader& header) {
  const bool within = !slot_.bytes.empty();
  if (within && (header.block != block_ || header.offset_bytes != filled_bytes_)) {
    return Invalid("WRITE_OUT_OF_ORDER",
                   absl::StrCat("block ", header.block, " at offset_bytes ", header.offset_bytes,
                                " came where block ", block_, " is at ", filled_bytes_, " of ",
                                slot_.bytes.size(), ": send each block whole and in order"));
  }
  if (within) return absl::OkStatus();
  if (header.offset_bytes != 0) {
    return Invalid("WRITE_OUT_OF_ORDER",
                   absl::StrCat("block ", header.block, " begins at offset_bytes ",
                                header.offset_bytes, ": begin each block at 0"));
  }
  REPRISE_ASSIGN_OR_RETURN(slot_, host_.OpenWrite(attachment_, reservation_, header.block));
  block_ = header.block;
  filled_bytes_ = 0;
  return absl::OkStatus();
}

}  // namespace reprise::lanes
