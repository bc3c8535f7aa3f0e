// Questions that people ask a shard, beside the link that workers use: why a prompt misses.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"
#include "proto/types/verbs.h"

namespace reprise::wire {
class Credentials;
}

namespace reprise::client {

struct ExplainQuery {
  Fingerprint fingerprint;
  std::span<const BlockKey> keys;
  std::span<const uint32_t> tokens;  // empty: unknown
};

class ShardQueries {
 public:
  virtual ~ShardQueries() = default;
  // The refusal or failure of the shard as it came.
  virtual absl::StatusOr<Explanation> Explain(const std::string& address, const ExplainQuery& query,
                                              absl::Time deadline) = 0;
};

// Without credentials in plaintext.
std::unique_ptr<ShardQueries> MakeGrpcShardQueries(
    std::shared_ptr<const wire::Credentials> credentials);

}  // namespace reprise::client
