#include "proto/types/cache_spec.h"

#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/sha256.h"
#include "proto/types/status_macros.h"

namespace reprise {
namespace {

constexpr absl::string_view kEncodingTag = "reprise cache spec v1";

struct Field {
  const char* name;
  std::string value;
  bool set;
};

Field Text(const char* name, const std::string& value) {
  return {name, value, !value.empty()};
}
Field Number(const char* name, uint32_t value) {
  return {name, absl::StrCat(value), value != 0};
}

// The one list of fields, in proto field order: encoding, comparison and printing all walk it.
std::vector<Field> FieldsOf(const CacheSpec& spec) {
  return {
      Text("model", spec.model),
      Text("revision", spec.revision),
      Text("scope", spec.scope),
      Text("attention", AttentionKindName(spec.attention)),
      Text("dtype", DataTypeName(spec.dtype)),
      Number("layers", spec.layers),
      Number("kv_heads", spec.kv_heads),
      Number("head_dim", spec.head_dim),
      Number("block_tokens", spec.block_tokens),
      Number("window_tokens", spec.window_tokens),
      Number("tensor_parallel_size", spec.tensor_parallel_size),
      Number("tensor_parallel_rank", spec.tensor_parallel_rank),
      Number("pipeline_parallel_size", spec.pipeline_parallel_size),
      Number("pipeline_parallel_rank", spec.pipeline_parallel_rank),
      Text("rope_digest", spec.rope_digest),
      Text("lora_digest", spec.lora_digest),
      Text("codec", spec.codec),
      Text("engine_layout", spec.engine_layout),
      Text("key_scheme", spec.key_scheme),
  };
}

void AppendLengthPrefixed(std::string& out, absl::string_view text) {
  const uint32_t size = static_cast<uint32_t>(text.size());
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(size >> shift));
  out.append(text.data(), text.size());
}

absl::Status Bad(absl::string_view field, absl::string_view value, absl::string_view cure) {
  return Refusal(absl::StatusCode::kInvalidArgument, "SPEC_FIELD",
                 absl::StrCat("spec.", field, " = ", value, ": ", cure));
}

absl::Status CheckRange(absl::string_view field, uint32_t value, uint32_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return Bad(field, absl::StrCat(value), absl::StrCat("must be in [1, ", max, "]"));
}

absl::Status CheckParallel(absl::string_view name, uint32_t size, uint32_t rank) {
  REPRISE_RETURN_IF_ERROR(CheckRange(absl::StrCat(name, "_size"), size, limits::kParallelSizeMax));
  if (rank < size) return absl::OkStatus();
  return Bad(absl::StrCat(name, "_rank"), absl::StrCat(rank),
             absl::StrCat("must be less than ", name, "_size = ", size));
}

}  // namespace

const char* DataTypeName(DataType type) {
  switch (type) {
    case DataType::kUnspecified:
      return "";
    case DataType::kF32:
      return "f32";
    case DataType::kF16:
      return "f16";
    case DataType::kBf16:
      return "bf16";
    case DataType::kF8E4M3:
      return "f8_e4m3";
    case DataType::kF8E5M2:
      return "f8_e5m2";
    case DataType::kI8:
      return "i8";
  }
  return "";
}

absl::StatusOr<DataType> DataTypeFromName(absl::string_view name) {
  for (DataType type : {DataType::kF32, DataType::kF16, DataType::kBf16, DataType::kF8E4M3,
                        DataType::kF8E5M2, DataType::kI8}) {
    if (name == DataTypeName(type)) return type;
  }
  return Bad("dtype", absl::StrCat("\"", name, "\""), "use f32, f16, bf16, f8_e4m3, f8_e5m2 or i8");
}

const char* AttentionKindName(AttentionKind kind) {
  switch (kind) {
    case AttentionKind::kUnspecified:
      return "";
    case AttentionKind::kGqa:
      return "gqa";
    case AttentionKind::kMla:
      return "mla";
  }
  return "";
}

uint32_t DataTypeBytes(DataType type) {
  switch (type) {
    case DataType::kUnspecified:
      return 0;
    case DataType::kF32:
      return 4;
    case DataType::kF16:
      return 2;
    case DataType::kBf16:
      return 2;
    case DataType::kF8E4M3:
      return 1;
    case DataType::kF8E5M2:
      return 1;
    case DataType::kI8:
      return 1;
  }
  return 0;
}

absl::Status ValidateSpec(const CacheSpec& spec) {
  if (spec.model.empty()) return Bad("model", "\"\"", "name the model");
  for (const Field& field : FieldsOf(spec)) {
    if (field.value.size() > limits::kSpecTextBytesMax) {
      return Bad(field.name, absl::StrCat("(", field.value.size(), " bytes)"),
                 absl::StrCat("at most kSpecTextBytesMax = ", limits::kSpecTextBytesMax, " bytes"));
    }
  }
  if (spec.attention == AttentionKind::kUnspecified)
    return Bad("attention", "unset", "use gqa or mla");
  if (DataTypeBytes(spec.dtype) == 0)
    return Bad("dtype", "unset", "use f32, f16, bf16, f8_e4m3, f8_e5m2 or i8");
  REPRISE_RETURN_IF_ERROR(CheckRange("layers", spec.layers, limits::kLayersMax));
  if (spec.attention == AttentionKind::kGqa) {
    REPRISE_RETURN_IF_ERROR(CheckRange("kv_heads", spec.kv_heads, limits::kKvHeadsMax));
  } else if (spec.kv_heads != 0) {
    return Bad("kv_heads", absl::StrCat(spec.kv_heads),
               "must be 0 with mla, which stores one latent per token");
  }
  REPRISE_RETURN_IF_ERROR(CheckRange("head_dim", spec.head_dim, limits::kHeadDimMax));
  REPRISE_RETURN_IF_ERROR(CheckRange("block_tokens", spec.block_tokens, limits::kBlockTokensMax));
  REPRISE_RETURN_IF_ERROR(
      CheckParallel("tensor_parallel", spec.tensor_parallel_size, spec.tensor_parallel_rank));
  REPRISE_RETURN_IF_ERROR(
      CheckParallel("pipeline_parallel", spec.pipeline_parallel_size, spec.pipeline_parallel_rank));
  const uint64_t block_bytes = LayoutOf(spec).block_bytes;
  if (block_bytes < limits::kBlockBytesMin || block_bytes > limits::kBlockBytesMax) {
    return Bad("block_tokens", absl::StrCat(spec.block_tokens),
               absl::StrCat("makes blocks of ", block_bytes, " bytes; they must have ",
                            limits::kBlockBytesMin, " to ", limits::kBlockBytesMax,
                            ": choose another number of tokens"));
  }
  return absl::OkStatus();
}

BlockLayout LayoutOf(const CacheSpec& spec) {
  const bool mla = spec.attention == AttentionKind::kMla;
  BlockLayout layout;
  layout.layers = spec.layers;
  layout.planes = mla ? 1 : 2;
  layout.heads = mla ? 1 : spec.kv_heads;
  layout.tokens = spec.block_tokens;
  layout.row_data_bytes = uint64_t{spec.head_dim} * DataTypeBytes(spec.dtype);
  layout.row_bytes = (layout.row_data_bytes + limits::kRowAlignBytes - 1) / limits::kRowAlignBytes *
                     limits::kRowAlignBytes;
  layout.plane_bytes = uint64_t{layout.heads} * layout.tokens * layout.row_bytes;
  layout.layer_bytes = layout.planes * layout.plane_bytes;
  layout.block_bytes = layout.layers * layout.layer_bytes;
  return layout;
}

std::string CanonicalEncoding(const CacheSpec& spec) {
  std::string out;
  AppendLengthPrefixed(out, kEncodingTag);
  uint8_t number = 1;
  for (const Field& field : FieldsOf(spec)) {
    out.push_back(static_cast<char>(number++));
    AppendLengthPrefixed(out, field.value);
  }
  return out;
}

Fingerprint FingerprintOf(const CacheSpec& spec) {
  const std::string encoding = CanonicalEncoding(spec);
  Fingerprint fingerprint;
  Sha256().Hash({reinterpret_cast<const uint8_t*>(encoding.data()), encoding.size()},
                fingerprint.bytes);
  return fingerprint;
}

std::optional<SpecDifference> FirstDifference(const CacheSpec& left, const CacheSpec& right) {
  const std::vector<Field> a = FieldsOf(left);
  const std::vector<Field> b = FieldsOf(right);
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].value != b[i].value) return SpecDifference{a[i].name, a[i].value, b[i].value};
  }
  return std::nullopt;
}

int CountDifferences(const CacheSpec& left, const CacheSpec& right) {
  const std::vector<Field> a = FieldsOf(left);
  const std::vector<Field> b = FieldsOf(right);
  int differences = 0;
  for (size_t i = 0; i < a.size(); ++i) differences += a[i].value != b[i].value;
  return differences;
}

std::string DescribeSpec(const CacheSpec& spec) {
  std::string out;
  for (const Field& field : FieldsOf(spec)) {
    if (field.set) absl::StrAppend(&out, out.empty() ? "" : " ", field.name, "=", field.value);
  }
  return out;
}

}  // namespace reprise
