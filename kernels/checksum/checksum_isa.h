// The checksum functions as one instruction set runs them: private to this folder.
//
// xxHash picks its vector code at compile time, so the same source (checksum_isa.inc) is compiled
// once per instruction set, each time with xxHash inlined, and checksum_cpu.cc chooses at run time.
// (Its own run-time dispatch is absent from the static archive that distributions ship.)
#pragma once

#include <cstdint>

namespace reprise::kernels {

struct ChecksumIsa {
  const char* name;
  void (*block)(const uint8_t* block, uint64_t block_bytes, uint64_t section_bytes,
                uint8_t* digest);
  void (*section)(const uint8_t* section, uint64_t section_bytes, uint8_t* digest);
  void (*from_sections)(const uint8_t* section_digests, uint64_t sections, uint64_t block_bytes,
                        uint8_t* digest);
};

extern const ChecksumIsa kChecksumBaseline;
#ifdef __x86_64__
extern const ChecksumIsa kChecksumAvx2;
extern const ChecksumIsa kChecksumAvx512;
#endif

// Those that this CPU can run, fastest first; at least one, then a null pointer.
const ChecksumIsa* const* UsableChecksumIsas();

}  // namespace reprise::kernels
