#include "kernels/checksum/checksum_isa.inc"

namespace reprise::kernels {

const ChecksumIsa kChecksumBaseline = {"baseline", Block, Section, FromSections};

}  // namespace reprise::kernels
