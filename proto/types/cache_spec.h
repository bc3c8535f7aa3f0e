// The cache spec: everything that must agree for two K/V tensors to be interchangeable, its
// canonical encoding, its fingerprint, and the layout of a block under it.
//
// Thread safety: values; free functions without shared state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/types/block_key.h"

namespace reprise {

enum class AttentionKind : uint8_t { kUnspecified = 0, kGqa = 1, kMla = 2 };
enum class DataType : uint8_t {
  kUnspecified = 0,
  kF32 = 1,
  kF16 = 2,
  kBf16 = 3,
  kF8E4M3 = 4,
  kF8E5M2 = 5,
  kI8 = 6
};

const char* DataTypeName(DataType type);  // "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "i8"
absl::StatusOr<DataType> DataTypeFromName(absl::string_view name);
const char* AttentionKindName(AttentionKind kind);  // "gqa", "mla"
uint32_t DataTypeBytes(DataType type);

// Mirrors reprise.v1.CacheSpec field by field; see there for what each means.
struct CacheSpec {
  std::string model;
  std::string revision;
  std::string scope;
  AttentionKind attention = AttentionKind::kUnspecified;
  DataType dtype = DataType::kUnspecified;
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t block_tokens = 0;
  uint32_t window_tokens = 0;
  uint32_t tensor_parallel_size = 1;
  uint32_t tensor_parallel_rank = 0;
  uint32_t pipeline_parallel_size = 1;
  uint32_t pipeline_parallel_rank = 0;
  std::string rope_digest;
  std::string lora_digest;
  std::string codec;  // kernels/quantize/spec_codec.h knows them
  std::string engine_layout;
  std::string key_scheme;

  friend bool operator==(const CacheSpec&, const CacheSpec&) = default;
};

// Where things are in one block. Canonical layout: GQA [layer][K|V][kv head][token][head dim],
// MLA [layer][token][latent]; every row (head dim or latent) is padded to 16 bytes.
struct BlockLayout {
  uint32_t layers = 0;
  uint32_t planes = 0;  // per layer: 2 (K, V) or 1 (latent)
  uint32_t heads = 0;   // per plane: kv heads, or 1
  uint32_t tokens = 0;
  uint64_t row_data_bytes = 0;  // bytes of one row that carry data
  uint64_t row_bytes = 0;       // the same, padded to 16
  uint64_t plane_bytes = 0;     // heads * tokens * row_bytes
  uint64_t layer_bytes = 0;     // planes * plane_bytes
  uint64_t block_bytes = 0;     // layers * layer_bytes
};

// INVALID_ARGUMENT naming the field that is missing, out of range (limits.h) or at odds with
// another one.
absl::Status ValidateSpec(const CacheSpec& spec);

// REQUIRES: ValidateSpec(spec).ok().
BlockLayout LayoutOf(const CacheSpec& spec);

// Injective: a domain tag, then per field its number, its length and its bytes.
std::string CanonicalEncoding(const CacheSpec& spec);

// SHA-256 of CanonicalEncoding(spec).
Fingerprint FingerprintOf(const CacheSpec& spec);

struct SpecDifference {
  std::string field;
  std::string left;
  std::string right;
};

// The first field, in field order, in which the two differ; nullopt when they are equal.
std::optional<SpecDifference> FirstDifference(const CacheSpec& left, const CacheSpec& right);

// In how many fields the two differ.
int CountDifferences(const CacheSpec& left, const CacheSpec& right);

// "model=llama dtype=bf16 ...": every field that is set, for people.
std::string DescribeSpec(const CacheSpec& spec);

}  // namespace reprise
