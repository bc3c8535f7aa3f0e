#include "cluster/lanes/stream/stream_lane.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/stream/message_pieces.h"
#include "cluster/lanes/stream/raw_call.h"
#include "cluster/lanes/stream/wire_codec.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "reprise/v1/shard.pb.h"

namespace reprise::lanes {
namespace {

constexpr char kReadMethod[] = "/reprise.v1.ShardService/Read";
constexpr char kWriteMethod[] = "/reprise.v1.ShardService/Write";

grpc::ByteBuffer ToBuffer(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// gRPC rounds a deadline up to its next tick: what is over already must not begin.
absl::Status CheckTimeLeft(absl::Time deadline) {
  if (absl::Now() < deadline) return absl::OkStatus();
  return Refusal(absl::StatusCode::kDeadlineExceeded, "DEADLINE_OVER",
                 "the deadline was over before the lane began: nothing was moved");
}

// Puts the messages of one Read in order into the sink.
class BlockAssembler {
 public:
  BlockAssembler(const ReadJob& job, BlockSink& sink) : job_(job), sink_(sink) {}

  absl::Status Take(const grpc::ByteBuffer& message) {
    const MessagePieces pieces(message);
    REPRISE_ASSIGN_OR_RETURN(const ParsedChunk chunk, ParseReadResponse(pieces.get()));
    const ChunkHeader& header = chunk.header;
    if (done_ == job_.blocks || header.block != job_.first + done_ ||
        header.offset_bytes != filled_ || header.data_bytes == 0 ||
        header.data_bytes > job_.block_bytes - filled_) {
      return Refusal(
          absl::StatusCode::kDataLoss, "READ_OUT_OF_ORDER",
          absl::StrCat("the shard sent ", header.data_bytes, " bytes at ", header.offset_bytes,
                       " of block ", header.block, " where block ", job_.first + done_, " was at ",
                       filled_, " of ", job_.block_bytes, " bytes: take it as a miss"));
    }
    if (filled_ == 0) buffer_ = sink_.Buffer(done_);
    CopyOut(pieces.get(), chunk.data_at, buffer_.subspan(filled_, header.data_bytes));
    filled_ += header.data_bytes;
    if (filled_ < job_.block_bytes) return absl::OkStatus();
    filled_ = 0;
    return sink_.Complete(done_++);
  }

  // After the stream ended well.
  absl::Status Whole() const {
    if (done_ == job_.blocks) return absl::OkStatus();
    return Refusal(absl::StatusCode::kDataLoss, "READ_CUT_SHORT",
                   absl::StrCat("the shard ended the stream after ", done_, " of ", job_.blocks,
                                " blocks: take the rest as a miss"));
  }

 private:
  const ReadJob& job_;
  BlockSink& sink_;
  std::span<uint8_t> buffer_;
  uint64_t filled_ = 0;
  uint32_t done_ = 0;
};

// Sends one block in chunks. False when the call is over.
bool SendBlock(RawCall& call, ChunkPool& chunks, ChunkHeader header, std::span<const uint8_t> bytes,
               bool last_block) {
  for (uint64_t at = 0; at < bytes.size(); at += header.data_bytes) {
    header.offset_bytes = at;
    header.data_bytes = std::min<uint64_t>(limits::kStreamChunkBytes, bytes.size() - at);
    const EncodedHeader encoded = EncodeWriteRequestHeader(header);
    ChunkPool::Chunk chunk = chunks.Take();
    std::memcpy(chunk.get(), bytes.data() + at, header.data_bytes);
    const std::array<grpc::Slice, 2> slices = {grpc::Slice(encoded.bytes.data(), encoded.size),
                                               chunks.ToSlice(std::move(chunk), header.data_bytes)};
    const grpc::ByteBuffer message(slices.data(), slices.size());
    const bool last = last_block && at + header.data_bytes == bytes.size();
    if (!(last ? call.WriteLast(message) : call.Write(message))) return false;
    header.attachment = 0;
    header.reservation = 0;
  }
  return true;
}

}  // namespace

StreamLane::StreamLane(std::shared_ptr<grpc::Channel> channel, AttachmentId attachment)
    : channel_(std::move(channel)), attachment_(attachment), chunks_(ChunkPool::Create()) {}

absl::Status StreamLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) {
  REPRISE_RETURN_IF_ERROR(CheckTimeLeft(deadline));
  v1::ReadRequest request;
  request.set_attachment_id(attachment_.value);
  request.set_lease_id(job.lease.value);
  request.set_first_block(job.first);
  request.set_blocks(job.blocks);

  // Outlive the call: gRPC may fill them until it is over.
  std::array<grpc::ByteBuffer, 2> messages;
  RawCall call(channel_, kReadMethod, deadline);
  BlockAssembler assembler(job, sink);
  if (!call.WriteLast(ToBuffer(request))) return call.Finish();
  call.StartRead(&messages[0]);
  for (size_t current = 0; call.FinishRead(); current = 1 - current) {
    call.StartRead(&messages[1 - current]);
    const absl::Status taken = assembler.Take(messages[current]);
    messages[current].Clear();
    if (!taken.ok()) {
      call.Cancel();
      return taken;
    }
  }
  REPRISE_RETURN_IF_ERROR(call.Finish());
  return assembler.Whole();
}

absl::Status StreamLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  REPRISE_RETURN_IF_ERROR(CheckTimeLeft(deadline));
  if (job.blocks.empty()) return absl::OkStatus();
  grpc::ByteBuffer response;
  RawCall call(channel_, kWriteMethod, deadline);
  ChunkHeader header{.attachment = attachment_.value, .reservation = job.reservation.value};
  absl::Status source_status;
  for (uint32_t i = 0; i < job.blocks.size(); ++i) {
    const absl::StatusOr<std::span<const uint8_t>> bytes = source.Bytes(i);
    source_status = bytes.status();
    if (bytes.ok()) {
      source_status = CheckBlockBytes(job.blocks[i], bytes->size(), job.block_bytes);
    }
    if (!source_status.ok()) {
      if (i == 0) return source_status;
      call.WritesDone();
      break;
    }
    header.block = job.blocks[i];
    if (!SendBlock(call, *chunks_, header, *bytes, i + 1 == job.blocks.size())) break;
    header.attachment = 0;
    header.reservation = 0;
  }
  // The blocks that were sent whole are written when the shard has answered, whatever the source
  // said of the next.
  call.StartRead(&response);
  call.FinishRead();
  const absl::Status answer = call.Finish();
  return source_status.ok() ? answer : source_status;
}

}  // namespace reprise::lanes
