#include "service/shard/tenant_quotas.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

// "512MiB", "1GiB", "4096": whole numbers, powers of 1024.
bool ParseSize(absl::string_view text, uint64_t& bytes) {
  constexpr std::pair<absl::string_view, int> kUnits[] = {
      {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}, {"B", 0}};
  int shift = 0;
  for (const auto& [unit, bits] : kUnits) {
    if (absl::ConsumeSuffix(&text, unit)) {
      shift = bits;
      break;
    }
  }
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number > (UINT64_MAX >> shift)) return false;
  bytes = number << shift;
  return true;
}

absl::Status Wrong(absl::string_view text, absl::string_view why) {
  return Refusal(absl::StatusCode::kInvalidArgument, "TENANT_QUOTA",
                 absl::StrCat("--tenant-quota ", text, ": ", why));
}

}  // namespace

uint64_t TenantQuotas::Of(const Tenant& tenant) const {
  const auto found = named.find(tenant);
  return found == named.end() ? default_bytes : found->second;
}

absl::StatusOr<TenantQuotas> ParseTenantQuotas(std::span<const std::string> named,
                                               uint64_t default_bytes) {
  TenantQuotas quotas{.default_bytes = default_bytes, .named = {}};
  for (const std::string& text : named) {
    const size_t equals = text.rfind('=');  // a SPIFFE id has none, another name may
    if (equals == std::string::npos || equals == 0 || equals > limits::kNameBytesMax) {
      return Wrong(text, absl::StrCat("must be NAME=SIZE, with a name of 1 to ",
                                      limits::kNameBytesMax, " bytes"));
    }
    uint64_t bytes = 0;
    if (!ParseSize(absl::string_view(text).substr(equals + 1), bytes)) {
      return Wrong(text, "the size must be a whole number of B, KiB, MiB, GiB or TiB");
    }
    if (!quotas.named.emplace(Tenant{text.substr(0, equals)}, bytes).second) {
      return Wrong(text, "this tenant is named twice");
    }
  }
  return quotas;
}

}  // namespace reprise::shard
