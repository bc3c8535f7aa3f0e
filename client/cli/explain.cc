// `reprise explain`: why a prompt hits as far as it does and no further.
#include <cstdio>
#include <fstream>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/c/json_options.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "client/cpp/client.h"
#include "client/cpp/explain_json.h"
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

struct ExplainOptions {
  Common common;
  Where where;
  std::string spec;
  std::string fingerprint;
  std::string tokens;
  std::string keys;
  std::string salt;
  std::string extra_key;
  std::string seed;
};

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
absl::StatusOr<CacheSpec> FindSpec(const ExplainOptions& options) {
  if (!options.spec.empty()) {
    REPRISE_ASSIGN_OR_RETURN(const std::string text, TextOrFile(options.spec, "--spec"));
    REPRISE_ASSIGN_OR_RETURN(CacheSpec spec, client::CacheSpecFromJson(text));
    REPRISE_RETURN_IF_ERROR(ValidateSpec(spec));
    return spec;
  }
  REPRISE_ASSIGN_OR_RETURN(const ClusterReport report, DescribeCluster(options.where));
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
absl::StatusOr<std::vector<BlockKey>> VllmKeysOfTokens(const ExplainOptions& options,
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
absl::StatusOr<std::vector<BlockKey>> KeysOfTokens(const ExplainOptions& options,
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

void PrintText(const std::vector<client::ShardExplanation>& explanations) {
  if (const auto* best = client::BestExplanation(explanations)) {
    std::printf("%s\n\n", best->explanation.sentence.c_str());
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& one : explanations) {
    if (!one.status.ok()) {
      rows.push_back({one.shard.id.name, "", "", std::string(one.status.message())});
      continue;
    }
    std::string tiers;
    for (const TierRun& run : one.explanation.tiers) {
      absl::StrAppend(&tiers, tiers.empty() ? "" : " ", TierName(run.tier), ":", run.blocks);
    }
    rows.push_back({one.shard.id.name.empty() ? one.shard.address : one.shard.id.name,
                    absl::StrCat(one.explanation.run_blocks), tiers,
                    client::MissReasonName(one.explanation.reason)});
  }
  std::printf("%s", Table({"SHARD", "BLOCKS", "TIERS", "FIRST MISS"}, rows).c_str());
}

absl::StatusOr<std::vector<client::ShardExplanation>> Ask(const ExplainOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckWhere(options.where));
  if (options.tokens.empty() == options.keys.empty()) {
    return Usage("PROMPT", "give the prompt, either as --tokens or as --keys");
  }
  REPRISE_ASSIGN_OR_RETURN(const CacheSpec spec, FindSpec(options));
  client::ExplainCall call{
      .fingerprint = FingerprintOf(spec), .keys = {}, .tokens = {}, .timeout = {}};
  if (!options.tokens.empty()) {
    REPRISE_ASSIGN_OR_RETURN(call.tokens, ReadTokens(options.tokens));
    REPRISE_ASSIGN_OR_RETURN(call.keys, KeysOfTokens(options, spec, call.tokens));
    call.tokens.resize(call.keys.size() * spec.block_tokens);
  } else {
    REPRISE_ASSIGN_OR_RETURN(call.keys, ReadKeys(options.keys));
  }
  if (call.keys.empty()) {
    return Usage("PROMPT", absl::StrCat("the prompt has no full block: a block is ",
                                        spec.block_tokens, " tokens"));
  }
  if (call.keys.size() > limits::kPromptBlocksMax) {
    return Usage("PROMPT", absl::StrCat("the prompt has ", call.keys.size(), " blocks, more than ",
                                        limits::kPromptBlocksMax, ": ask for a part of it"));
  }
  REPRISE_ASSIGN_OR_RETURN(
      auto asking, client::Client::Create({.routers = options.where.routers,
                                           .shards = options.where.shards,
                                           .name = "reprise explain",
                                           .timeout = absl::Seconds(options.where.timeout_s),
                                           .tls = options.where.tls}));
  return asking->Explain(call);
}

ExitCode Explain(const ExplainOptions& options) {
  const auto explanations = [&] {
    Waiting waiting("asking the shards");
    return Ask(options);
  }();
  if (!explanations.ok()) return Complain(explanations.status());
  if (options.common.json()) {
    std::printf("%s\n", client::ExplainJson(*explanations).c_str());
  } else {
    PrintText(*explanations);
  }
  if (client::BestExplanation(*explanations) != nullptr) return ExitCode::kOk;
  for (const client::ShardExplanation& one : *explanations) return Complain(one.status);
  return Complain(Refusal(absl::StatusCode::kUnavailable, "NO_SHARD",
                          "the router knows no shard: look with `reprise describe`"));
}

}  // namespace

Registered AddExplain(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("explain", "why a prompt hits as far as it does and no further");
  auto options = std::make_shared<ExplainOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option("--tokens", options->tokens,
                      "token ids: a file, - for stdin, or JSON [1, 2, ...]");
  command->add_option("--keys", options->keys, "block keys in hex, with commas between");
  command->add_option("--spec", options->spec, "cache spec as JSON, or a file with it");
  command->add_option("--fingerprint", options->fingerprint,
                      "the spec, by the start of its fingerprint's hex");
  command->add_option("--salt", options->salt, "salt of the keys, cache_salt of the request");
  command->add_option("--extra-key", options->extra_key, "of SGLang's requests: their extra_key");
  command->add_option("--seed", options->seed, "of vLLM's hashes: its PYTHONHASHSEED")
      ->envname("PYTHONHASHSEED");
  return {command, [options] { return Explain(*options); }};
}

}  // namespace reprise::cli
