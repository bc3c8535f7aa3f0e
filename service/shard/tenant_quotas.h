// How much of a shard's memory each tenant may have, over all tiers together.
//
// Thread safety: none; set before the engine has it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "proto/types/ids.h"

namespace reprise::shard {

struct TenantQuotas {
  static constexpr uint64_t kNone = 0;  // as much as there is

  uint64_t default_bytes = kNone;  // of a tenant that is not named
  absl::flat_hash_map<Tenant, uint64_t> named;

  uint64_t Of(const Tenant& tenant) const;
};

// From "NAME=SIZE" for each named tenant (SIZE as in 512MiB; 0: none) and the others' bytes.
// INVALID_ARGUMENT naming the text that is no such thing, or the tenant named twice.
absl::StatusOr<TenantQuotas> ParseTenantQuotas(std::span<const std::string> named,
                                               uint64_t default_bytes);

}  // namespace reprise::shard
