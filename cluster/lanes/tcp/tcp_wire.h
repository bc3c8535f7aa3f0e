// What is said on a connection of the tcp lane: frames, each a fixed header and a body. The body of
// a block is the block itself, and of a verb and its answer the protobuf message that gRPC would
// carry; every other body is a message of little-endian fields.
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
//   Verb: its request                   ->
//                                       <-   Answer: its response, or Outcome{why not}
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

// ShardService's RPCs that are asked here, too.
enum class Verb : uint32_t { kLookup = 1, kAcquire = 2, kRelease = 3, kReserve = 4, kCommit = 5 };

inline constexpr size_t kHeaderBytes = 16;
inline constexpr uint32_t kBlockType = 0x100;  // beyond every index of Message
inline constexpr uint32_t kVerbType = 0x101;
inline constexpr uint32_t kAnswerType = 0x102;

struct Header {
  uint32_t type = 0;        // index in Message, or one of the types above
  uint32_t block = 0;       // of a block: index among the keys of Acquire or Reserve
                            // of a verb and its answer: which; perhaps none that is known
  uint32_t body_bytes = 0;  // of a message at most limits::kTcpMessageBytesMax, of a verb and its
                            // answer limits::kTcpVerbBytesMax
  bool is_block() const { return type == kBlockType; }
  bool is_verb() const { return type == kVerbType; }
  bool is_answer() const { return type == kAnswerType; }
  bool is_message() const { return type < kBlockType; }
  Verb verb() const { return static_cast<Verb>(block); }
};

// Header and body.
std::string Encode(const Message& message);
// REQUIRES: `body_bytes` fits the type.
std::array<uint8_t, kHeaderBytes> EncodeBlockHeader(uint32_t block, uint64_t body_bytes);
std::array<uint8_t, kHeaderBytes> EncodeVerbHeader(Verb verb, uint64_t body_bytes);
std::array<uint8_t, kHeaderBytes> EncodeAnswerHeader(Verb verb, uint64_t body_bytes);

// INVALID_ARGUMENT when the bytes are no header of this version, or the body is too large.
absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes);
// INVALID_ARGUMENT when the body is not exactly a message of that type.
absl::StatusOr<Message> DecodeBody(const Header& header, std::span<const uint8_t> body);

}  // namespace reprise::lanes::tcp
