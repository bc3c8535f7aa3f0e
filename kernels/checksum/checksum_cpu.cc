#include "kernels/checksum/checksum.h"
#include "kernels/checksum/checksum_isa.h"

namespace reprise::kernels {
namespace {

struct UsableIsas {
  UsableIsas() {
    int count = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) isas[count++] = &kChecksumAvx512;
    if (__builtin_cpu_supports("avx2")) isas[count++] = &kChecksumAvx2;
#endif
    isas[count++] = &kChecksumBaseline;
  }
  const ChecksumIsa* isas[4] = {};
};

const ChecksumIsa& FastestIsa() {
  static const ChecksumIsa* const fastest = UsableChecksumIsas()[0];
  return *fastest;
}

}  // namespace

const ChecksumIsa* const* UsableChecksumIsas() {
  static const UsableIsas usable;
  return usable.isas;
}

void ChecksumBlock(const void* block, uint64_t block_bytes, uint64_t section_bytes,
                   uint8_t digest[kChecksumDigestBytes]) {
  FastestIsa().block(static_cast<const uint8_t*>(block), block_bytes, section_bytes, digest);
}

void ChecksumSection(const void* section, uint64_t section_bytes,
                     uint8_t digest[kChecksumDigestBytes]) {
  FastestIsa().section(static_cast<const uint8_t*>(section), section_bytes, digest);
}

void ChecksumFromSections(const uint8_t* section_digests, uint64_t sections, uint64_t block_bytes,
                          uint8_t digest[kChecksumDigestBytes]) {
  FastestIsa().from_sections(section_digests, sections, block_bytes, digest);
}

}  // namespace reprise::kernels
