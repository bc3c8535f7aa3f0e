// JSON objects that people write by hand: unknown members are refused with the nearest one that
// exists.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/client.h"
#include "proto/types/cache_spec.h"

namespace reprise::client {

// The entry of `known` that is nearest to `word` by edit distance. REQUIRES: known is not empty.
std::string NearestWord(absl::string_view word, std::span<const std::string> known);

// reprise.h, reprise_client_open. INVALID_ARGUMENT naming the member.
absl::StatusOr<ClientOptions> ClientOptionsFromJson(absl::string_view text);

// reprise.h, reprise_spec_open. INVALID_ARGUMENT naming the member. Does not validate the spec's
// contents.
absl::StatusOr<CacheSpec> CacheSpecFromJson(absl::string_view text);

}  // namespace reprise::client
