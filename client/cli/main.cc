// `reprise`: the command line of a Reprise cluster.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/json_options.h"
#include "client/cli/command.h"
#include "proto/types/refusal.h"

namespace {

using reprise::cli::Registered;

// CLI11 says of a mistyped command only that one is required.
absl::Status CheckCommand(const std::vector<Registered>& commands, const std::string& word) {
  std::vector<std::string> names;
  for (const Registered& command : commands) {
    names.push_back(command.app->get_name());
    if (names.back() == word) return absl::OkStatus();
  }
  return reprise::Refusal(absl::StatusCode::kInvalidArgument, "COMMAND",
                          absl::StrCat("there is no command \"", word, "\": did you mean \"",
                                       reprise::client::NearestWord(word, names), "\"?"));
}

}  // namespace

int main(int argc, char** argv) {
  using reprise::cli::ExitCode;
  CLI::App app("Reprise: attention K/V of LLM prompts, kept outside the workers.", "reprise");
  app.require_subcommand(0, 1);
  app.footer(
      "Start with `reprise up`, then `reprise describe --router HOST:PORT`; `reprise doctor` when "
      "it does not.");
  const std::vector<Registered> commands = {
      reprise::cli::AddUp(app),     reprise::cli::AddDescribe(app), reprise::cli::AddGet(app),
      reprise::cli::AddTop(app),    reprise::cli::AddExplain(app),  reprise::cli::AddHint(app),
      reprise::cli::AddDrain(app),  reprise::cli::AddSize(app),     reprise::cli::AddDoctor(app),
      reprise::cli::AddVersion(app)};
  if (argc > 1 && argv[1][0] != '-') {
    const absl::Status known = CheckCommand(commands, argv[1]);
    if (!known.ok()) return static_cast<int>(reprise::cli::Complain(known));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  for (const auto& command : commands) {
    if (command.app->parsed()) {
      const ExitCode code = command.run();
      std::fflush(stdout);
      return static_cast<int>(code);
    }
  }
  std::fputs(app.help().c_str(), stderr);
  return static_cast<int>(ExitCode::kUsage);
}
