// What a cache spec's codec makes of its blocks: the shape that is encoded, and the layout of a
// block where it is stored.
//
// Thread safety: pure functions.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "kernels/quantize/quant_format.h"
#include "proto/types/cache_spec.h"

namespace reprise::kernels {

// nullopt: blocks are stored as the engine has them. INVALID_ARGUMENT: CODEC_UNKNOWN names the
// codecs there are, CODEC_DTYPE a type of number that none of them encodes.
// REQUIRES: ValidateSpec(spec).ok().
absl::StatusOr<std::optional<QuantShape>> CodecOf(const CacheSpec& spec);

// LayoutOf(spec), but layer_bytes and block_bytes are those of an encoded block, which has no
// planes and rows of numbers any more.
BlockLayout StoredLayoutOf(const CacheSpec& spec, const std::optional<QuantShape>& codec);

}  // namespace reprise::kernels
