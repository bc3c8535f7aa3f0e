// A trace of requests to replay: what prompts were asked for, in which order, and when.
//
// One JSON object a line, either in the published form of Mooncake (FAST 2025): `hash_ids`, one id
// for each so many tokens, which stands for its block and all before it; or with `token_ids`, the
// prompt's tokens, as somebody logs their own. `timestamp` is in milliseconds and may be left out.
// What else is in the object is not looked at.
//
// Invariants: a block has one parent wherever it occurs, so a trace's blocks are a forest.
// Thread safety: free functions; no shared state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::sizing {

struct Request {
  absl::Duration at;  // since the trace's epoch; never less than that of the request before
  uint64_t prompt_tokens = 0;
  std::vector<uint64_t>
      blocks;  // keys of the full blocks, the first one first; uniform over 64 bits
};

struct Trace {
  std::string name;           // the file's, without its folder
  uint32_t block_tokens = 0;  // in each block
  std::vector<Request> requests;
};

struct TraceOptions {
  uint32_t trace_block_tokens = 512;  // that one of hash_ids stands for
  uint32_t block_tokens = 16;         // of blocks that token_ids are cut into
};

// Of a line: a prompt of as many tokens as one may have,
inline constexpr size_t kTraceTokensMax = limits::kPromptBlocksMax * 16;
inline constexpr size_t kTraceLineBytesMax =
    kTraceTokensMax * 12  //   each as a number of 32 bits, a comma and a space,
    + (64 << 10);         //   and everything else

// NOT_FOUND when the file cannot be read. INVALID_ARGUMENT, naming file and line and what is wrong
// there, when a line is no request, when it is longer than kTraceLineBytesMax, when some lines have
// hash_ids and others token_ids, when an id follows another block than it did before, and when
// there is no request at all. Requests without a timestamp come limits::kReuseApart after the one
// before. REQUIRES: both numbers of tokens are at least 1.
absl::StatusOr<Trace> ReadTrace(const std::string& path, const TraceOptions& options);

// The key of the block that a trace calls `id`.
uint64_t KeyOfId(uint64_t id);

}  // namespace reprise::sizing
