// Requests to replay: a published trace of chat requests (Mooncake, FAST'25, one JSON object a line
// with `timestamp` in ms and `hash_ids`, one id per 512 tokens that stands for its block and all
// before it), or generated ones of its shape.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"

namespace reprise::bench {

struct Request {
  absl::Duration at;             // since the trace's begin
  std::vector<uint32_t> blocks;  // ids of its blocks, the first block first
};

struct Trace {
  std::string name;
  std::vector<Request> requests;
};

absl::StatusOr<Trace> ReadTrace(const std::string& path);

// Conversations whose prompts grow turn by turn behind one shared system block.
Trace GeneratedTrace(uint32_t seed);

BlockKey KeyOf(uint64_t id);
// The keys of a request, each block of the trace cut into `parts`.
std::vector<BlockKey> KeysOf(const Request& request, uint32_t parts);

// Share of the block references that a cache without a bound would hit.
double InfiniteHitRatio(const Trace& trace);

}  // namespace reprise::bench
