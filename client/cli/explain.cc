// `reprise explain`: why a prompt hits as far as it does and no further.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/prompt.h"
#include "client/cli/terminal.h"
#include "client/cpp/client.h"
#include "client/cpp/explain_json.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cli {
namespace {

struct ExplainOptions {
  Common common;
  Where where;
  PromptOptions prompt;
};

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
  if (!NamesPrompt(options.prompt)) {
    return Refusal(absl::StatusCode::kInvalidArgument, "PROMPT",
                   "give the prompt, either as --tokens or as --keys");
  }
  REPRISE_ASSIGN_OR_RETURN(Prompt prompt, ReadPrompt(options.prompt, options.where));
  REPRISE_ASSIGN_OR_RETURN(
      auto asking, client::Client::Create({.routers = options.where.routers,
                                           .shards = options.where.shards,
                                           .name = "reprise explain",
                                           .timeout = absl::Seconds(options.where.timeout_s),
                                           .tls = options.where.tls}));
  return asking->Explain({.fingerprint = FingerprintOf(prompt.spec),
                          .keys = std::move(prompt.keys),
                          .tokens = std::move(prompt.tokens),
                          .timeout = {}});
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
  AddPrompt(*command, options->prompt);
  return {command, [options] { return Explain(*options); }};
}

}  // namespace reprise::cli
