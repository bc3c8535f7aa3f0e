// `reprise`: the command line of a Reprise cluster.
#include <cstdio>
#include <vector>

#include "client/cli/command.h"

int main(int argc, char** argv) {
  using reprise::cli::ExitCode;
  CLI::App app("Reprise: attention K/V of LLM prompts, kept outside the workers.", "reprise");
  app.require_subcommand(1);
  app.footer(
      "Start with `reprise up`, then `reprise describe --router HOST:PORT`; `reprise doctor` when "
      "it does not.");
  const std::vector<reprise::cli::Registered> commands = {
      reprise::cli::AddUp(app),      reprise::cli::AddDescribe(app), reprise::cli::AddGet(app),
      reprise::cli::AddExplain(app), reprise::cli::AddDoctor(app),   reprise::cli::AddVersion(app)};
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
  return static_cast<int>(ExitCode::kUsage);
}
