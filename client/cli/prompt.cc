#include "client/cli/prompt.h"

#include <cstddef>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/c/json_options.h"
#include "client/cli/cluster_view.h"
#include "client/cpp/prefix_hasher.h"
#include "client/cpp/sglang_keys.h"
#include "client/cpp/vllm_keys.h"
#include "nlohmann/json.hpp"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"

namespace reprise::cli {
namespace {

// More than the tokens of the longest prompt that one question can carry.
constexpr size_t kFileBytesMax = 4 * limits::kMessageBytesMax;

absl::Status Usage(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

// The text itself, or the contents of the file that it names.
absl::StatusOr<std::string> TextOrFile(const std::string& text, absl::string_view option) {
  const bool literal = !text.empty() && (text[0] == '[' || text[0] == '{');
  if (literal) return text;
  std::ifstream file(text == "-" ? "/dev/stdin" : text, std::ios::binary);
  std::string contents;
  for (char byte = 0; contents.size() <= kFileBytesMax && file.get(byte);) contents += byte;
  if (contents.size() > kFileBytesMax) {
    return Usage("FILE_SIZE", absl::StrCat(option, " ", text, " has more than ", kFileBytesMax,
                                           " bytes: give at most the ", limits::kPromptBlocksMax,
                                           " blocks of one prompt"));
  }
  if (file.bad() || !file.eof()) {  // a folder opens and cannot be read
    return Refusal(absl::StatusCode::kNotFound, "FILE",
                   absl::StrCat(option, " ", text,
                                " cannot be read: give a file, - for stdin, or the JSON itself"));
  }
  return contents;
}

// [1, 2, ...], {"tokens": [...]}, or numbers with blanks or commas between.
absl::StatusOr<std::vector<uint32_t>> ReadTokens(const std::string& option) {
  REPRISE_ASSIGN_OR_RETURN(const std::string text, TextOrFile(option, "--tokens"));
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("tokens")) json = nlohmann::json(json["tokens"]);
  if (!json.is_array()) {
    json = nlohmann::json::array();
    for (absl::string_view word :
         absl::StrSplit(text, absl::ByAnyChar(" ,\t\r\n"), absl::SkipEmpty())) {
      uint32_t token = 0;
      if (!absl::SimpleAtoi(word, &token)) {
        return Usage("TOKENS", absl::StrCat("--tokens has \"", absl::CHexEscape(word.substr(0, 40)),
                                            "\": give ids, whole numbers below 2^32"));
      }
      json.push_back(token);
    }
  }
  std::vector<uint32_t> tokens;
  for (const auto& token : json) {
    if (!token.is_number_unsigned() ||
        token.get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return Usage("TOKENS", absl::StrCat("--tokens has ", token.dump(),
                                          ": give ids, whole numbers below 2^32"));
    }
    tokens.push_back(token.get<uint32_t>());
  }
  return tokens;
}

absl::StatusOr<std::vector<BlockKey>> ReadKeys(const std::string& text) {
  std::vector<BlockKey> keys;
  for (absl::string_view hex : absl::StrSplit(text, absl::ByAnyChar(" ,\n"), absl::SkipEmpty())) {
    REPRISE_ASSIGN_OR_RETURN(const BlockKey key, BlockKeyFromHex(hex));
    keys.push_back(key);
  }
  return keys;
}

// The spec that is meant: given in full, by its fingerprint's start, or the only one that the
// cluster has.
absl::StatusOr<CacheSpec> FindSpec(const PromptOptions& options, const Where& where) {
  if (!options.spec.empty()) {
    REPRISE_ASSIGN_OR_RETURN(const std::string text, TextOrFile(options.spec, "--spec"));
    REPRISE_ASSIGN_OR_RETURN(CacheSpec spec, client::CacheSpecFromJson(text));
    REPRISE_RETURN_IF_ERROR(ValidateSpec(spec));
    return spec;
  }
  REPRISE_ASSIGN_OR_RETURN(const ClusterReport report, DescribeCluster(where));
  std::map<std::string, CacheSpec> found;
  for (const ShardReport& shard : report.shards) {
    for (const auto& spec : shard.description.specs()) {
      const std::string hex = HexOf(spec.fingerprint());
      if (hex.rfind(options.fingerprint, 0) == 0)
        found.emplace(hex, wire::FromMessage(spec.spec()));
    }
  }
  if (found.size() == 1) return found.begin()->second;
  return Refusal(
      absl::StatusCode::kNotFound, "SPEC",
      absl::StrCat(found.size(),
                   " specs in the cluster fit: name one with --fingerprint (`reprise get "
                   "specs` lists them) or --spec"));
}

// vLLM hashes every `tokens_per_hash` tokens; a block of several hashes has the last one's key.
absl::StatusOr<std::vector<BlockKey>> VllmKeysOfTokens(const PromptOptions& options,
                                                       const CacheSpec& spec,
                                                       const std::vector<uint32_t>& tokens) {
  uint32_t tokens_per_hash = spec.block_tokens;
  for (absl::string_view word : absl::StrSplit(spec.key_scheme, ' ')) {
    if (absl::ConsumePrefix(&word, "tokens=") && !absl::SimpleAtoi(word, &tokens_per_hash)) {
      return Usage("KEY_SCHEME",
                   absl::StrCat("the spec's key scheme \"", spec.key_scheme, "\" cannot be read"));
    }
  }
  if (tokens_per_hash == 0 || spec.block_tokens % tokens_per_hash != 0) {
    return Usage("KEY_SCHEME", absl::StrCat("blocks of ", spec.block_tokens,
                                            " tokens do not fit hashes of ", tokens_per_hash));
  }
  client::VllmKeyContext context;
  if (!options.seed.empty()) context.seed = options.seed;
  if (!options.salt.empty()) context.cache_salt = options.salt;
  const std::vector<BlockKey> hashes = client::VllmKeys(tokens, tokens_per_hash, context);
  const size_t per_block = spec.block_tokens / tokens_per_hash;
  std::vector<BlockKey> keys;
  for (size_t i = per_block; i <= hashes.size(); i += per_block) keys.push_back(hashes[i - 1]);
  return keys;
}

// By the scheme of the spec: ours, SGLang's, or vLLM's sha256_cbor.
absl::StatusOr<std::vector<BlockKey>> KeysOfTokens(const PromptOptions& options,
                                                   const CacheSpec& spec,
                                                   const std::vector<uint32_t>& tokens) {
  if (spec.key_scheme.empty() || spec.key_scheme == client::kRepriseKeyScheme) {
    const std::vector<uint8_t> salt(options.salt.begin(), options.salt.end());
    return client::PrefixKeys(tokens, spec.block_tokens,
                              {.parent = std::nullopt, .salt = salt, .extra = {}});
  }
  if (spec.key_scheme == client::kSglangKeyScheme) {
    return client::SglangKeys(tokens, spec.block_tokens,
                              {.extra_key = options.extra_key, .cache_salt = options.salt});
  }
  if (absl::StrContains(spec.key_scheme, "sha256_cbor"))
    return VllmKeysOfTokens(options, spec, tokens);
  return Usage("KEY_SCHEME",
               absl::StrCat("the spec's keys are made by \"", spec.key_scheme,
                            "\", which only its engine can: give the keys with --keys"));
}

}  // namespace

void AddPrompt(CLI::App& app, PromptOptions& options) {
  app.add_option("--tokens", options.tokens, "token ids: a file, - for stdin, or JSON [1, 2, ...]");
  app.add_option("--keys", options.keys, "block keys in hex, with commas between");
  app.add_option("--spec", options.spec, "cache spec as JSON, or a file with it");
  app.add_option("--fingerprint", options.fingerprint,
                 "the spec, by the start of its fingerprint's hex");
  app.add_option("--salt", options.salt, "salt of the keys, cache_salt of the request");
  app.add_option("--extra-key", options.extra_key, "of SGLang's requests: their extra_key");
  app.add_option("--seed", options.seed, "of vLLM's hashes: its PYTHONHASHSEED")
      ->envname("PYTHONHASHSEED");
}

bool NamesPrompt(const PromptOptions& options) {
  return !options.tokens.empty() || !options.keys.empty();
}

absl::StatusOr<Prompt> ReadPrompt(const PromptOptions& options, const Where& where) {
  REPRISE_RETURN_IF_ERROR(CheckWhere(where));
  if (!options.tokens.empty() && !options.keys.empty()) {
    return Usage("PROMPT", "the prompt is given twice: leave out --tokens or --keys");
  }
  Prompt prompt;
  REPRISE_ASSIGN_OR_RETURN(prompt.spec, FindSpec(options, where));
  if (!NamesPrompt(options)) return prompt;
  if (!options.tokens.empty()) {
    REPRISE_ASSIGN_OR_RETURN(prompt.tokens, ReadTokens(options.tokens));
    REPRISE_ASSIGN_OR_RETURN(prompt.keys, KeysOfTokens(options, prompt.spec, prompt.tokens));
    prompt.tokens.resize(prompt.keys.size() * prompt.spec.block_tokens);
  } else {
    REPRISE_ASSIGN_OR_RETURN(prompt.keys, ReadKeys(options.keys));
  }
  if (prompt.keys.empty()) {
    return Usage("PROMPT", absl::StrCat("the prompt has no full block: a block is ",
                                        prompt.spec.block_tokens, " tokens"));
  }
  if (prompt.keys.size() > limits::kPromptBlocksMax) {
    return Usage("PROMPT",
                 absl::StrCat("the prompt has ", prompt.keys.size(), " blocks, more than ",
                              limits::kPromptBlocksMax, ": ask for a part of it"));
  }
  return prompt;
}

}  // namespace reprise::cli
