// What the main files of both servers share: the command line, the log, and the end by a signal.
//
// Thread safety: for main alone; Log may be called from any thread.
#pragma once

#include <signal.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace reprise::process {

// nullopt: go on. Else the exit code to end with: 0 when help or the version was asked for, 2 when
// the command line is wrong, which was said on stderr.
std::optional<int> Parse(CLI::App& app, int argc, char** argv);

// --status-listen and --status-public.
void AddStatusFlags(CLI::App& app, std::string& listen, bool& public_address);

// One line on stderr, with the time and `name`. REQUIRES: OpenLog was called.
void OpenLog(const std::string& name);
void Log(absl::string_view line);

// Lets the process have as many descriptors as it may: clients are many, and a listener that runs
// out of them stops.
void TakeDescriptors();

// SIGTERM and SIGINT, as something that main waits for. REQUIRES: made before any thread.
class StopSignals {
 public:
  StopSignals();
  // Waits for one of them, logs which, and returns it.
  int Await() const;

 private:
  sigset_t signals_;
};

}  // namespace reprise::process
