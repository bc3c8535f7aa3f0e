// Cache specs and fingerprints between messages and types.
//
// Thread safety: free functions; no shared state.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "reprise/v1/common.pb.h"

namespace reprise::wire {

v1::CacheSpec ToMessage(const CacheSpec& spec);

// Field by field; judging it is ValidateSpec's business.
CacheSpec FromMessage(const v1::CacheSpec& message);

// INVALID_ARGUMENT naming `field` unless `bytes` are 32.
absl::StatusOr<Fingerprint> FingerprintFromBytes(absl::string_view bytes, absl::string_view field);

std::string ToBytes(const Fingerprint& fingerprint);

}  // namespace reprise::wire
