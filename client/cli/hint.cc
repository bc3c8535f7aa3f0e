// `reprise hint retain|pin|release|evict|demote`: keeps what is stored of a prompt, or lets it go.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "client/cli/prompt.h"
#include "client/cli/terminal.h"
#include "client/cpp/client.h"
#include "nlohmann/json.hpp"
#include "proto/types/hints.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cli {
namespace {

constexpr HintVerb kVerbs[] = {HintVerb::kRetain, HintVerb::kPin, HintVerb::kRelease,
                               HintVerb::kEvict, HintVerb::kDemote};

struct HintOptions {
  Common common;
  Where where;
  PromptOptions prompt;
  std::string verb;
  std::string session;
  std::optional<std::string> claim;
  std::optional<std::string> ttl;
  std::optional<uint32_t> priority;
  std::optional<uint64_t> first_token;
};

// What was asked, and what came of it.
struct Told {
  Hint hint;
  uint32_t block_tokens = 0;
  uint64_t first_token = 0;  // as it was asked for
  client::HintAnswer answer;
};

absl::Status Usage(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

HintVerb VerbNamed(const std::string& name) {
  for (const HintVerb verb : kVerbs) {
    if (name == HintVerbName(verb)) return verb;
  }
  return HintVerb::kRetain;  // not reached: the command line takes no other name
}

// An option that the verb does not look at was meant for another one.
absl::Status CheckFits(const HintOptions& options) {
  const HintVerb verb = VerbNamed(options.verb);
  const bool keeps = verb == HintVerb::kRetain || verb == HintVerb::kPin;
  const bool claims = keeps || verb == HintVerb::kRelease;
  const struct {
    const char* name;
    bool given;
    bool fits;
  } rows[] = {{"--claim", options.claim.has_value(), claims},
              {"--ttl", options.ttl.has_value(), keeps},
              {"--priority", options.priority.has_value(), verb == HintVerb::kRetain},
              {"--first-token", options.first_token.has_value(), !claims}};
  for (const auto& row : rows) {
    if (row.given && !row.fits) {
      return Usage("OPTION", absl::StrCat(row.name, " means nothing to ", options.verb,
                                          ": leave it out, or see `reprise hint --help`"));
    }
  }
  if (claims && !options.claim) {
    return Usage("CLAIM", absl::StrCat(options.verb, " is about a claim: name it with --claim"));
  }
  if (keeps && !options.ttl) {
    return Usage("TTL", "a claim ends by itself: say when with --ttl, as 90s, 10m or 24h");
  }
  if (verb != HintVerb::kRelease && !NamesPrompt(options.prompt)) {
    return Usage("PROMPT", "give the prompt, either as --tokens or as --keys");
  }
  return absl::OkStatus();
}

absl::StatusOr<Hint> HintOf(const HintOptions& options, const Prompt& prompt) {
  Hint hint{.verb = VerbNamed(options.verb), .claim_id = options.claim.value_or("")};
  if (options.ttl && !absl::ParseDuration(*options.ttl, &hint.ttl)) {
    return Usage("TTL",
                 absl::StrCat("--ttl is \"", *options.ttl, "\": write a time as 90s, 10m or 24h"));
  }
  hint.priority = options.priority.value_or(limits::kClaimPriority);
  if (options.first_token) {
    const uint64_t block_tokens = prompt.spec.block_tokens;
    const uint64_t blocks =
        *options.first_token / block_tokens + (*options.first_token % block_tokens != 0 ? 1 : 0);
    if (blocks >= prompt.keys.size()) {
      return Usage("FIRST_TOKEN",
                   absl::StrCat("--first-token is ", *options.first_token,
                                ", and no block of the prompt begins there or later: it has ",
                                prompt.keys.size(), " of ", block_tokens, " tokens"));
    }
    hint.first_block = static_cast<uint32_t>(blocks);
  }
  return hint;
}

absl::StatusOr<Told> Ask(const HintOptions& options) {
  REPRISE_RETURN_IF_ERROR(CheckFits(options));
  REPRISE_ASSIGN_OR_RETURN(Prompt prompt, ReadPrompt(options.prompt, options.where));
  REPRISE_ASSIGN_OR_RETURN(const Hint hint, HintOf(options, prompt));
  REPRISE_ASSIGN_OR_RETURN(
      auto asking, client::Client::Create({.routers = options.where.routers,
                                           .shards = options.where.shards,
                                           .name = "reprise hint",
                                           .timeout = absl::Seconds(options.where.timeout_s),
                                           .tls = options.where.tls}));
  Told told{.hint = hint,
            .block_tokens = prompt.spec.block_tokens,
            .first_token = options.first_token.value_or(0)};
  client::HintCall call{.spec = nullptr,
                        .keys = std::move(prompt.keys),
                        .session = options.session,
                        .hint = hint,
                        .timeout = {}};
  REPRISE_ASSIGN_OR_RETURN(call.spec, asking->OpenSpec(prompt.spec));
  REPRISE_ASSIGN_OR_RETURN(told.answer, asking->Hint(call));
  return told;
}

std::string BlocksText(const Told& told) {
  const uint32_t blocks = told.answer.result.blocks;
  return absl::StrCat(blocks, blocks == 1 ? " block (" : " blocks (",
                      uint64_t{blocks} * told.block_tokens, " tokens)");
}

std::string Done(const Told& told) {
  const HintResult& result = told.answer.result;
  const std::string blocks = BlocksText(told);
  switch (told.hint.verb) {
    case HintVerb::kRetain:
      return absl::StrCat("claim \"", told.hint.claim_id, "\" retains ", blocks, " at priority ",
                          told.hint.priority, " for ", HumanDuration(result.ttl));
    case HintVerb::kPin:
      return absl::StrCat("claim \"", told.hint.claim_id, "\" pins ", blocks, " for ",
                          HumanDuration(result.ttl));
    case HintVerb::kRelease:
      return absl::StrCat("claim \"", told.hint.claim_id, "\" is over: it held ", blocks);
    case HintVerb::kEvict:
      return absl::StrCat(blocks, " dropped");
    case HintVerb::kDemote:
      return absl::StrCat(blocks, " moved to a slower tier");
  }
  return "";
}

// One sentence.
std::string Sentence(const Told& told) {
  std::string sentence = Done(told);
  if (told.hint.first_block > 0) {
    absl::StrAppend(&sentence, ", from token ", uint64_t{told.hint.first_block} * told.block_tokens,
                    " on");
    if (told.first_token % told.block_tokens != 0) {
      absl::StrAppend(&sentence, " (", told.first_token, ", rounded up to a block)");
    }
  }
  if (told.answer.result.outcome == HintOutcome::kClipped) absl::StrAppend(&sentence, ", no more");
  if (told.answer.result.outcome == HintOutcome::kDeferred)
    absl::StrAppend(&sentence, ", the rest later");
  if (!told.answer.result.why.empty()) absl::StrAppend(&sentence, ": ", told.answer.result.why);
  return sentence;
}

nlohmann::ordered_json JsonOf(const Told& told) {
  const HintResult& result = told.answer.result;
  nlohmann::ordered_json json = {{"verb", HintVerbName(told.hint.verb)}};
  if (!told.hint.claim_id.empty()) json["claim"] = told.hint.claim_id;
  if (told.hint.verb == HintVerb::kEvict || told.hint.verb == HintVerb::kDemote)
    json["first_block"] = told.hint.first_block;
  json["outcome"] = HintOutcomeName(result.outcome);
  json["blocks"] = result.blocks;
  json["tokens"] = uint64_t{result.blocks} * told.block_tokens;
  json["ttl_seconds"] = absl::ToDoubleSeconds(result.ttl);
  json["shards"] = told.answer.shards;
  json["why"] = result.why;
  if (!told.answer.status.ok()) {
    json["error"] = {{"code", static_cast<int>(told.answer.status.code())},
                     {"message", std::string(told.answer.status.message())}};
  }
  return json;
}

ExitCode SendHint(const HintOptions& options) {
  const absl::StatusOr<Told> told = [&] {
    Waiting waiting("asking the shards");
    return Ask(options);
  }();
  if (!told.ok()) return Complain(told.status());
  const client::HintAnswer& answer = told->answer;
  if (options.common.json()) PrintJson(JsonOf(*told));
  const ExitCode incomplete = answer.status.ok() ? ExitCode::kOk : Complain(answer.status);
  if (answer.shards == 0) return incomplete;
  if (answer.result.outcome != HintOutcome::kMissing) {
    if (!options.common.json()) std::printf("%s\n", Sentence(*told).c_str());
    return ExitCode::kOk;
  }
  // Only all shards together know that there is nothing.
  if (incomplete != ExitCode::kOk) return incomplete;
  const std::string& why = answer.result.why;
  return Complain(Refusal(absl::StatusCode::kNotFound, "NOTHING_FOUND",
                          why.empty() ? absl::StrCat("there is nothing to ", options.verb) : why));
}

}  // namespace

Registered AddHint(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "hint", "keep what is stored of a prompt (retain, pin, release), or let it go");
  auto options = std::make_shared<HintOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command
      ->add_option("verb", options->verb,
                   "retain: goes last, lower priority first; pin: is not evicted; release: ends "
                   "the claim that either left; evict: is dropped now; demote: moves to a slower "
                   "tier now")
      ->required()
      ->check(CLI::IsMember({"retain", "pin", "release", "evict", "demote"}));
  AddPrompt(*command, options->prompt);
  command->add_option("--session", options->session, "the prompt's conversation, if it has one");
  command->add_option("--claim", options->claim, "name of the claim (retain, pin, release)");
  command->add_option("--ttl", options->ttl, "when the claim ends: 90s, 10m, 24h (retain, pin)");
  command->add_option("--priority", options->priority,
                      absl::StrCat("1 to ", limits::kClaimPriorityMax, ", the highest goes last; ",
                                   limits::kClaimPriority, " if not given (retain)"));
  command->add_option("--first-token", options->first_token,
                      "tokens before it stay; rounded up to a block (evict, demote)");
  return {command, [options] { return SendHint(*options); }};
}

}  // namespace reprise::cli
