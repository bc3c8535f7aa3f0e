// The messages of the view lane's Unix socket: a fixed header, then a body of little-endian fields.
// Bytes of blocks never travel here, only the places where they are.
//
//   caller                                     shard
//   Hello{attachment}                     ->
//                                         <-   Outcome
//   OpenRead{lease, first, blocks, size}  ->                    one opening at a time
//                                         <-   Places{status, extent, offset, memory per block}
//   MapExtent{extent}                     ->                    only for extents of the opening
//                                         <-   Extent{status, size, handle} and a descriptor
//   Done{blocks}                          ->                    so many were read; ends the
//                                                               opening; no answer
//   OpenWrite{reservation, size, blocks}  ->
//                                         <-   Places{status, ...}, as many as could be opened
//   Written{blocks}                       ->                    so many were filled; ends it
//                                         <-   Outcome
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/view/extent_exporter.h"
#include "proto/types/ids.h"

namespace reprise::lanes::view {

struct Hello {
  AttachmentId attachment;
};
struct OpenRead {
  LeaseId lease;
  uint32_t first = 0;
  uint32_t blocks = 0;
  uint64_t block_bytes = 0;
};
struct OpenWrite {
  ReservationId reservation;
  uint64_t block_bytes = 0;
  std::vector<uint32_t> blocks;
};
struct MapExtent {
  uint64_t extent = 0;
};
struct Written {
  uint32_t blocks = 0;
};
struct Done {
  std::optional<uint32_t> blocks;  // unset: all that were opened
};

struct Place {
  uint64_t extent = 0;
  uint64_t offset_bytes = 0;
  MemoryKind memory = MemoryKind::kHost;
};
struct Places {
  absl::Status status;
  std::vector<Place> places;
};
// OK: with this message comes a descriptor. Of host memory it is a file of extent_bytes. Of device
// memory it is a tether: the shard takes the extent for mapped until every copy of the descriptor
// is closed, which a process that dies does like one that unmaps.
struct Extent {
  absl::Status status;
  uint64_t extent_bytes = 0;
  std::optional<DeviceHandle> device;  // of device memory
};
struct Outcome {
  absl::Status status;
};

using Message =
    std::variant<Hello, OpenRead, OpenWrite, MapExtent, Written, Done, Places, Extent, Outcome>;

inline constexpr size_t kHeaderBytes = 12;

// Header and body.
std::string Encode(const Message& message);

struct Header {
  uint32_t type = 0;        // index in Message
  uint32_t body_bytes = 0;  // at most limits::kViewMessageBytesMax
};
// INVALID_ARGUMENT when the bytes are no header of this version, or the body is too large.
absl::StatusOr<Header> DecodeHeader(std::span<const uint8_t, kHeaderBytes> bytes);
// INVALID_ARGUMENT when the body is not exactly a message of that type.
absl::StatusOr<Message> DecodeBody(const Header& header, std::span<const uint8_t> body);

}  // namespace reprise::lanes::view
