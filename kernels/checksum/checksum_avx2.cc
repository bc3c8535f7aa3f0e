#include "kernels/checksum/checksum_isa.inc"

namespace reprise::kernels {

const ChecksumIsa kChecksumAvx2 = {"avx2", Block, Section, FromSections};

}  // namespace reprise::kernels
