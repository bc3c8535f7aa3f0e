#include "proto/wire/spec.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/wire/enums.h"

namespace reprise::wire {

v1::CacheSpec ToMessage(const CacheSpec& spec) {
  v1::CacheSpec message;
  message.set_model(spec.model);
  message.set_revision(spec.revision);
  message.set_scope(spec.scope);
  message.set_attention(ToMessage(spec.attention));
  message.set_dtype(ToMessage(spec.dtype));
  message.set_layers(spec.layers);
  message.set_kv_heads(spec.kv_heads);
  message.set_head_dim(spec.head_dim);
  message.set_block_tokens(spec.block_tokens);
  message.set_window_tokens(spec.window_tokens);
  message.set_tensor_parallel_size(spec.tensor_parallel_size);
  message.set_tensor_parallel_rank(spec.tensor_parallel_rank);
  message.set_pipeline_parallel_size(spec.pipeline_parallel_size);
  message.set_pipeline_parallel_rank(spec.pipeline_parallel_rank);
  message.set_rope_digest(spec.rope_digest);
  message.set_lora_digest(spec.lora_digest);
  message.set_codec(spec.codec);
  message.set_engine_layout(spec.engine_layout);
  message.set_key_scheme(spec.key_scheme);
  return message;
}

CacheSpec FromMessage(const v1::CacheSpec& message) {
  CacheSpec spec;
  spec.model = message.model();
  spec.revision = message.revision();
  spec.scope = message.scope();
  spec.attention = FromMessage(message.attention());
  spec.dtype = FromMessage(message.dtype());
  spec.layers = message.layers();
  spec.kv_heads = message.kv_heads();
  spec.head_dim = message.head_dim();
  spec.block_tokens = message.block_tokens();
  spec.window_tokens = message.window_tokens();
  spec.tensor_parallel_size = message.tensor_parallel_size();
  spec.tensor_parallel_rank = message.tensor_parallel_rank();
  spec.pipeline_parallel_size = message.pipeline_parallel_size();
  spec.pipeline_parallel_rank = message.pipeline_parallel_rank();
  spec.rope_digest = message.rope_digest();
  spec.lora_digest = message.lora_digest();
  spec.codec = message.codec();
  spec.engine_layout = message.engine_layout();
  spec.key_scheme = message.key_scheme();
  return spec;
}

absl::StatusOr<Fingerprint> FingerprintFromBytes(absl::string_view bytes, absl::string_view field) {
  if (bytes.size() != kDigestBytes) {
    return Refusal(absl::StatusCode::kInvalidArgument, "FINGERPRINT_LENGTH",
                   absl::StrCat(field, " has ", bytes.size(), " bytes: send the ", kDigestBytes,
                                "-byte fingerprint that OpenSpec answered"));
  }
  Fingerprint fingerprint;
  std::memcpy(fingerprint.bytes.data(), bytes.data(), kDigestBytes);
  return fingerprint;
}

std::string ToBytes(const Fingerprint& fingerprint) {
  return std::string(fingerprint.bytes.begin(), fingerprint.bytes.end());
}

}  // namespace reprise::wire
