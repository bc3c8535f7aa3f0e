// The stream lane's hand-made parser agrees with protobuf: what it accepts, protobuf reads as the
// same message, however the bytes are cut into pieces.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/lanes/stream/wire_codec.h"
#include "proto/types/status_macros.h"
#include "reprise/v1/shard.pb.h"

namespace {

using reprise::lanes::CopyOut;
using reprise::lanes::ParsedChunk;

std::vector<std::span<const uint8_t>> Cut(std::span<const uint8_t> bytes, uint8_t by) {
  std::vector<std::span<const uint8_t>> pieces;
  const size_t step = by == 0 ? bytes.size() : by;
  for (size_t at = 0; at < bytes.size(); at += step) {
    pieces.push_back(bytes.subspan(at, std::min(step, bytes.size() - at)));
  }
  return pieces;
}

std::string DataOf(std::span<const std::span<const uint8_t>> pieces, const ParsedChunk& chunk) {
  std::string data(chunk.header.data_bytes, '\0');
  CopyOut(pieces, chunk.data_at, {reinterpret_cast<uint8_t*>(data.data()), data.size()});
  return data;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  const auto pieces = Cut(bytes, data[0]);
  if (const auto chunk = reprise::lanes::ParseReadResponse(pieces); chunk.ok()) {
    reprise::v1::ReadResponse message;
    REPRISE_CHECK(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
    REPRISE_CHECK(message.block() == chunk->header.block);
    REPRISE_CHECK(message.offset_bytes() == chunk->header.offset_bytes);
    REPRISE_CHECK(message.data() == DataOf(pieces, *chunk));
  }
  if (const auto chunk = reprise::lanes::ParseWriteRequest(pieces); chunk.ok()) {
    reprise::v1::WriteRequest message;
    REPRISE_CHECK(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
    REPRISE_CHECK(message.attachment_id() == chunk->header.attachment);
    REPRISE_CHECK(message.reservation_id() == chunk->header.reservation);
    REPRISE_CHECK(message.block() == chunk->header.block);
    REPRISE_CHECK(message.data() == DataOf(pieces, *chunk));
  }
  return 0;
}
