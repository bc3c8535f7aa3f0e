// Where the chunks of a block are, and where the GPU keeps their digests until they are hashed in
// turn. C++17.
//
// Scratch of one block: for each section its chunk digests and then its length (8 bytes, and 8 of
// padding), so that the section digest is one hash over contiguous bytes; after them the section
// digests and the block's length likewise.
//
// Thread safety: values; pure functions.
#pragma once

#include <cstdint>

#include "kernels/checksum/checksum.h"
#include "kernels/runtime/host_device.h"

namespace reprise::kernels {

struct ChecksumGeometry {
  uint64_t block_bytes = 0;
  uint64_t section_bytes = 0;  // of every section but the last
  uint32_t sections = 0;
  uint32_t chunks_per_section = 0;  // of every section but the last, which may have fewer
  uint64_t section_scratch_bytes = 0;
  uint64_t block_scratch_bytes = 0;

  REPRISE_HD uint64_t Chunks() const {
    return static_cast<uint64_t>(sections) * chunks_per_section;
  }
  REPRISE_HD uint64_t SectionBytes(uint32_t section) const {
    const uint64_t rest = block_bytes - section * section_bytes;
    return rest < section_bytes ? rest : section_bytes;
  }
  REPRISE_HD uint64_t SectionScratch(uint32_t section) const {
    return section * section_scratch_bytes;
  }
  REPRISE_HD uint64_t JoinScratch() const { return sections * section_scratch_bytes; }
};

// REQUIRES: block_bytes > 0, section_bytes > 0.
inline ChecksumGeometry MakeChecksumGeometry(uint64_t block_bytes, uint64_t section_bytes) {
  ChecksumGeometry geometry;
  geometry.block_bytes = block_bytes;
  geometry.section_bytes = section_bytes < block_bytes ? section_bytes : block_bytes;
  geometry.sections = static_cast<uint32_t>((block_bytes - 1) / geometry.section_bytes + 1);
  geometry.chunks_per_section =
      static_cast<uint32_t>((geometry.section_bytes - 1) / kChecksumChunkBytes + 1);
  geometry.section_scratch_bytes = (geometry.chunks_per_section + 1ull) * kChecksumDigestBytes;
  geometry.block_scratch_bytes = geometry.sections * geometry.section_scratch_bytes +
                                 (geometry.sections + 1ull) * kChecksumDigestBytes;
  return geometry;
}

// One chunk of one block.
struct ChunkPlace {
  bool exists;  // the last section may have fewer chunks than the others
  uint64_t at;  // in the block
  uint64_t bytes;
  uint64_t digest;  // in the block's scratch
  bool last_of_section;
  uint32_t section;
};

// REQUIRES: chunk < geometry.Chunks().
REPRISE_HD ChunkPlace PlaceChunk(const ChecksumGeometry& geometry, uint64_t chunk) {
  const auto section = static_cast<uint32_t>(chunk / geometry.chunks_per_section);
  const auto in_section = static_cast<uint32_t>(chunk % geometry.chunks_per_section);
  const uint64_t offset = in_section * kChecksumChunkBytes;
  const uint64_t section_bytes = geometry.SectionBytes(section);
  ChunkPlace place{};
  if (offset >= section_bytes) return place;
  const uint64_t rest = section_bytes - offset;
  place.exists = true;
  place.at = section * geometry.section_bytes + offset;
  place.bytes = rest < kChecksumChunkBytes ? rest : kChecksumChunkBytes;
  place.digest = geometry.SectionScratch(section) + in_section * kChecksumDigestBytes;
  place.last_of_section = rest <= kChecksumChunkBytes;
  place.section = section;
  return place;
}

// The bytes to hash for one section's digest: its chunk digests and its length.
REPRISE_HD uint64_t SectionInputBytes(const ChecksumGeometry& geometry, uint32_t section) {
  const uint64_t chunks = (geometry.SectionBytes(section) - 1) / kChecksumChunkBytes + 1;
  return chunks * kChecksumDigestBytes + 8;
}

}  // namespace reprise::kernels
