// The 128-bit block checksum: one definition, a CPU and a CUDA implementation that agree
// bit for bit.
//
// Definition. A block is cut into sections of `section_bytes` (one layer each; the last may be
// shorter) and every section into chunks of kChecksumChunkBytes (the last may be shorter).
//   chunk digest   = XXH3-128, seed 0, of the chunk's bytes, in canonical (big-endian) form
//   section digest = XXH3-128, seed 0, of the section's chunk digests in order, then the section's
//                    length as u64 little-endian
//   block checksum = XXH3-128, seed 0, of the section digests in order, then the block's length as
//                    u64 little-endian
// Chunks are independent, so that thousands of GPU threads and one AVX2 core both run at memory
// speed, and a section's digest is recomputed from that section's bytes alone. XXH3 is Yann
// Collet's (github.com/Cyan4973/xxHash). It finds accidents, not attacks.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace reprise::kernels {

inline constexpr uint64_t kChecksumChunkBytes = 16 << 10;
inline constexpr size_t kChecksumDigestBytes = 16;

// Writes the checksum of `block_bytes` bytes at `block` (host memory) to `digest`.
// REQUIRES: section_bytes > 0, block_bytes > 0.
void ChecksumBlock(const void* block, uint64_t block_bytes, uint64_t section_bytes,
                   uint8_t digest[kChecksumDigestBytes]);

// The digest of one section alone.
void ChecksumSection(const void* section, uint64_t section_bytes,
                     uint8_t digest[kChecksumDigestBytes]);

// The block checksum from its section digests (kChecksumDigestBytes each, in order).
void ChecksumFromSections(const uint8_t* section_digests, uint64_t sections, uint64_t block_bytes,
                          uint8_t digest[kChecksumDigestBytes]);

}  // namespace reprise::kernels
