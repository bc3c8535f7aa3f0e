#include "kernels/quantize/quantize_avx2_tile.inc"
// These are over tiles.
#include "kernels/quantize/quantize_avx2_int4.inc"
#include "kernels/quantize/quantize_avx2_scaled.inc"

namespace reprise::kernels {

const QuantizeIsa kQuantizeAvx2 = {"avx2",       Largest,       EncodeScaled,
                                   DecodeScaled, EncodeGrouped, DecodeGrouped};

}  // namespace reprise::kernels
