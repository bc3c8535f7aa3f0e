#include "client/cpp/prefill_rates.h"

#include <cmath>

#include "proto/types/limits.h"

namespace reprise::client {

void PrefillRates::Add(const Fingerprint& fingerprint, uint64_t tokens, absl::Duration time) {
  if (tokens < limits::kPrefillTokensMin || time <= absl::ZeroDuration()) return;
  const double kept = std::exp2(-static_cast<double>(tokens) / limits::kPrefillHalfLifeTokens);
  absl::MutexLock lock(&mu_);
  if (seen_.size() >= limits::kRoutesCachedMax && !seen_.contains(fingerprint)) seen_.clear();
  Seen& seen = seen_[fingerprint];
  seen.tokens = seen.tokens * kept + static_cast<double>(tokens);
  seen.seconds = seen.seconds * kept + absl::ToDoubleSeconds(time);
}

absl::Duration PrefillRates::PerToken(const Fingerprint& fingerprint) const {
  absl::MutexLock lock(&mu_);
  const auto seen = seen_.find(fingerprint);
  if (seen == seen_.end()) return absl::ZeroDuration();
  return absl::Seconds(seen->second.seconds / seen->second.tokens);
}

}  // namespace reprise::client
