// The codecs (quantize.h) on a GPU, fused with gather and scatter: an engine's pages to encoded
// blocks and back, without a canonical block in between. The bytes are those of EncodeBlock after
// GatherBlock, and of ScatterBlock after DecodeBlock.
//
// Bytes moved per block: to encode, the rows once from memory and once more from cache (the scale
// or group is looked for first), and the encoded block written once; to decode, the encoded block
// read once and the rows written once. Bound: device memory bandwidth; fp8 of bf16 moves 3/4 of a
// copy's bytes, int4 5/8 and a little.
//
// Thread safety: as block_copy_cuda.h. Calls only launch: tables, blocks and pages belong to the
// stream until it has passed.
#pragma once

#include "absl/status/status.h"
#include "kernels/block_copy/block_copy_cuda.h"
#include "kernels/quantize/quant_format.h"

namespace reprise::kernels {

// run.block_table names encoded blocks of EncodedBlockBytes(shape), 16-byte aligned. With a range
// of layers, only those layers' bytes are touched. INVALID_ARGUMENT QUANT_SHAPE when shape and plan
// are not of the same blocks, or the plan's alignment is below one element.
absl::Status EncodeRun(const GpuPlan& plan, const QuantShape& shape, const BlockRun& run,
                       GpuStream stream);
absl::Status DecodeRun(const GpuPlan& plan, const QuantShape& shape, const BlockRun& run,
                       GpuStream stream);

}  // namespace reprise::kernels
