// What is said on a connection of the tcp lane: frames, each a fixed header and a body. A block is
// a frame whose body is the block itself; every other body is a message of little-endian fields.
//
//   caller                                   shard
//   Hello{attachment}                   ->
//                                       <-   Outcome{status}
//
//   Read{lease, first, blocks, size}    ->
//                                       <-   Block, for each of them in order
//                                       <-   Outcome{why}, instead of the first that cannot be read
//
//   Write{reservation, size}            ->
//   Block, for each                     ->
//                                       <-   Outcome{why}, at once after one that cannot be
//                                            written; further Blocks are thrown away
//   WriteEnd                            ->
//                                       <-   Outcome{OK}, unless there was one
//
// One call after the other. Whoever cannot go on closes the connection.
//
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/types/ids.h"

namespace reprise::lanes::tcp {

struct Hello {
  AttachmentId attachment;
};
struct Read {
  LeaseId lease;
  uint32_t first = 0;
  uint32_t blocks = 0;
  uint64_t block_bytes = 0;
};
struct Write {
  ReservationId reservation;
  uint64_t block_bytes = 0;
};
struct WriteEnd {};
struct Outcome {
  absl::Status status;
};

using Message = std::variant<Hello, Read, Write, WriteEnd, Outcome>;

inline constexpr size_t kHeaderBytes = 16;
inline constexpr uint32_t kBlockType = 0x100;  // beyond every index of Message

struct Header {
  uint32_t type = 0;        // index in Message, or kBlockType
  uint32_t block = 0;       // of a block: index among the keys of Acquire or Reserve
  uint32_t body_bytes = 0;  // of a message at most limits::kTcpMessageBytesMax
  bool is_block() const { return type == kBlockType; }
};

// Header and body.
std::string Encode(const Message& message);
std::array<uint8_t, kHeaderBytes> EncodeBlockHeader(uint32_t block, uint64_t block_bytes);

// INVALID_ARGUMENT when the bytes are no header of this version, or the body is too large.
absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes);
// INVALID_ARGUMENT when the body is not exactly a message of that type.
absl::StatusOr<Message> DecodeBody(const Header& header, std::span<const uint8_t> body);

}  // namespace reprise::lanes::tcp
