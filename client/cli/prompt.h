// The prompt that a person means, out of the command line: its tokens or its keys, and under which
// cache spec.
//
// Invariants: a prompt that was read has at least one key and at most kPromptBlocksMax, or none
// where none was named; its tokens are those of its keys, or none. Thread safety: free functions;
// no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"

namespace reprise::cli {

struct PromptOptions {
  std::string spec;
  std::string fingerprint;
  std::string tokens;
  std::string keys;
  std::string salt;
  std::string extra_key;
  std::string seed;
};

struct Prompt {
  CacheSpec spec;
  std::vector<uint32_t> tokens;  // block_tokens for each key; empty: unknown
  std::vector<BlockKey> keys;    // from the first block on
};

void AddPrompt(CLI::App& app, PromptOptions& options);

// True when tokens or keys were given.
bool NamesPrompt(const PromptOptions& options);

// Reads what the options name, and asks the cluster for its specs where none was given in full.
// INVALID_ARGUMENT naming what is wrong with the command line or what it leads to, NOT_FOUND for a
// file that cannot be read or a spec that is not there or not the only one, UNAVAILABLE or
// DEADLINE_EXCEEDED when the cluster had to be asked and did not answer.
absl::StatusOr<Prompt> ReadPrompt(const PromptOptions& options, const Where& where);

}  // namespace reprise::cli
