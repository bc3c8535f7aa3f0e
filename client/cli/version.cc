// `reprise version`
#include <cstdio>

#include "client/cli/command.h"
#include "nlohmann/json.hpp"

namespace reprise::cli {

Registered AddVersion(CLI::App& app) {
  CLI::App* command = app.add_subcommand("version", "what this executable is");
  auto common = std::make_shared<Common>();
  AddCommon(*command, *common);
  return {command, [common] {
            if (common->json()) {
              PrintJson({{"version", REPRISE_VERSION}});
            } else {
              std::printf("reprise %s\n", REPRISE_VERSION);
            }
            return ExitCode::kOk;
          }};
}

}  // namespace reprise::cli
