// Runs a program of ours to its end, for what it says in JSON.
//
// Thread safety: one thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/process.h"

namespace reprise::testing {

struct Answer {
  nlohmann::json json;  // null when it printed none
  int exit_code = -1;   // -1: it did not end by itself
};

// `arguments`, with the program's path first, and "-o json" after them.
inline Answer Run(std::vector<std::string> arguments) {
  constexpr absl::Duration kOnlyAHangReachesIt = absl::Seconds(60);
  arguments.insert(arguments.end(), {"-o", "json"});
  Process process(arguments);
  Answer answer;
  if (const auto line = process.ReadLine(kOnlyAHangReachesIt)) {
    answer.json = nlohmann::json::parse(*line, nullptr, /*allow_exceptions=*/false);
  }
  const auto status = process.Wait(kOnlyAHangReachesIt);
  if (status.has_value() && WIFEXITED(*status)) answer.exit_code = WEXITSTATUS(*status);
  return answer;
}

// The command line of the cluster.
inline Answer Reprise(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), BinFolder() + "/reprise");
  return Run(std::move(arguments));
}

}  // namespace reprise::testing
