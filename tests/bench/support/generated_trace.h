// Which requests a benchmark replays: those of a file, or generated ones of the same shape.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "service/sizing/trace.h"

namespace reprise::bench {

// Chat requests that were published (Mooncake, FAST 2025).
inline constexpr char kTracePath[] = "../shared/data/traces/mooncake_conversation.jsonl";

// The trace at `path`. Where that cannot be read and nobody `asked` for it: GeneratedTrace(1), and
// a line on stderr that says so.
absl::StatusOr<sizing::Trace> TraceFor(const std::string& path, bool asked);

// Conversations whose prompts grow turn by turn behind one shared system block.
sizing::Trace GeneratedTrace(uint32_t seed);

// Share of the block references that a cache without a bound would hit.
double InfiniteHitRatio(const sizing::Trace& trace);

}  // namespace reprise::bench
