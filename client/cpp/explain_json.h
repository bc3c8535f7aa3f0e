// What the shards say about a prompt, as JSON for programs and people.
#pragma once

#include <string>
#include <vector>

#include "client/cpp/client.h"

namespace reprise::client {

const char* MissReasonName(MissReason reason);  // "none", "never_stored", "evicted", ...

// The shard that holds the longest run; of several the one that knows most about the miss. nullptr
// when none answered.
const ShardExplanation* BestExplanation(const std::vector<ShardExplanation>& explanations);

// {"run_blocks", "shard_id", "reason", "sentence", ..., "shards": [the same of every shard]}.
std::string ExplainJson(const std::vector<ShardExplanation>& explanations);

}  // namespace reprise::client
