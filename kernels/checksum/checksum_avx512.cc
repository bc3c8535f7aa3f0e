#include "kernels/checksum/checksum_isa.inc"

namespace reprise::kernels {

const ChecksumIsa kChecksumAvx512 = {"avx512", Block, Section, FromSections};

}  // namespace reprise::kernels
