// The stream lane's messages by hand: the wire format of reprise.v1.ReadResponse and WriteRequest,
// so that a block's bytes are never copied into a protobuf `bytes` field. A message is a header
// made here and then the bytes themselves, which are its last field.
//
// Invariants: what Encode*Header makes, followed by `data_bytes` bytes, parses with the published
// proto; Parse* takes whatever any protobuf library writes (any field order, repeated scalars,
// unknown fields), cut into pieces anywhere, and refuses the rest with INVALID_ARGUMENT without
// reading outside of the pieces.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace reprise::lanes {

// Part of one block's bytes as a message carries it. For a ReadResponse, attachment and reservation
// stay 0.
struct ChunkHeader {
  uint64_t attachment = 0;   // WriteRequest only
  uint64_t reservation = 0;  // WriteRequest only
  uint32_t block = 0;        // index among the keys of Acquire or Reserve
  uint64_t offset_bytes = 0;
  uint64_t data_bytes = 0;
};

// Two fixed64, a 32-bit, a 64-bit and the length's varint, each with a tag byte.
inline constexpr size_t kChunkHeaderBytesMax = 9 + 9 + (1 + 5) + (1 + 10) + (1 + 10);

struct EncodedHeader {
  std::array<uint8_t, kChunkHeaderBytesMax> bytes;
  size_t size = 0;
};
EncodedHeader EncodeReadResponseHeader(const ChunkHeader& chunk);
EncodedHeader EncodeWriteRequestHeader(const ChunkHeader& chunk);

// A message as it came, in order.
using Pieces = std::span<const std::span<const uint8_t>>;

struct ParsedChunk {
  ChunkHeader header;
  uint64_t data_at = 0;  // where `data` begins in the message
};
absl::StatusOr<ParsedChunk> ParseReadResponse(Pieces message);
absl::StatusOr<ParsedChunk> ParseWriteRequest(Pieces message);

// Copies `to.size()` bytes of the message from position `from_byte` on.
// REQUIRES: they are within the message.
void CopyOut(Pieces message, uint64_t from_byte, std::span<uint8_t> to);

}  // namespace reprise::lanes
