// What every subcommand of `reprise` keeps to: data on stdout, talk on stderr, one meaning for each
// exit code.
//
// Thread safety: one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"
#include "proto/types/tls_options.h"

namespace reprise::cli {

enum class ExitCode : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,        // the command line is wrong
  kNotFound = 3,     // what was asked for does not exist
  kUnreachable = 4,  // nobody answered
  kRefused = 5,      // somebody answered: no
};

// The exit code that a failure of the network or of a server means.
ExitCode ExitCodeOf(const absl::Status& status);

// Says what went wrong on stderr, and returns its exit code.
ExitCode Complain(const absl::Status& status);

// On stdout, in one line. What is not UTF-8 (a server's words may be anything) becomes U+FFFD.
void PrintJson(const nlohmann::ordered_json& json);

// Options that every subcommand has. Lives as long as the command line is worked on.
struct Common {
  std::string output = "text";  // "text" or "json"
  bool json() const { return output == "json"; }
};

// Where the cluster is (--router, or $REPRISE_ROUTER; or --shard, once or more), and how to speak
// to it.
struct Where {
  std::vector<std::string> routers;
  std::vector<std::string> shards;
  double timeout_s = 5;
  TlsOptions tls;  // none(): plaintext
};

void AddCommon(CLI::App& app, Common& common);
// The three files; which servers are believed is AddWhere's.
void AddTlsFiles(CLI::App& app, TlsOptions& tls);
void AddWhere(CLI::App& app, Where& where);
// INVALID_ARGUMENT with what to do when neither was given.
absl::Status CheckWhere(const Where& where);

// A subcommand: adds itself to the application; `run` is called when it was chosen.
using Runner = std::function<ExitCode()>;
struct Registered {
  CLI::App* app = nullptr;
  Runner run;
};
Registered AddUp(CLI::App& app);
Registered AddDescribe(CLI::App& app);
Registered AddTop(CLI::App& app);
Registered AddGet(CLI::App& app);
Registered AddDrain(CLI::App& app);
Registered AddSize(CLI::App& app);
Registered AddExplain(CLI::App& app);
Registered AddHint(CLI::App& app);
Registered AddDoctor(CLI::App& app);
Registered AddVersion(CLI::App& app);

}  // namespace reprise::cli
