#include "service/process/server_process.h"

#include <pthread.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace reprise::process {
namespace {

constexpr int kWrongCommandLine = 2;

}  // namespace

std::optional<int> Parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongCommandLine;
  }
}

void AddStatusFlags(CLI::App& app, std::string& listen, bool& public_address) {
  app.add_option("--status-listen", listen,
                 "host:port to serve /metrics, /livez, /readyz and a status page on, over plain "
                 "HTTP; port 0: a free one; default: nowhere");
  app.add_flag("--status-public", public_address,
               "Let --status-listen be an address that is not loopback: who reaches it reads "
               "counts and sizes, never keys, tokens, tenants or blocks");
}

void OpenLog(const std::string& name) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt(name));
}

void Log(absl::string_view line) {
  spdlog::info("{}", std::string(line));
}

void TakeDescriptors() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

StopSignals::StopSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int StopSignals::Await() const {
  int signal = 0;
  sigwait(&signals_, &signal);
  Log(absl::StrCat("stopping on ", strsignal(signal)));
  return signal;
}

}  // namespace reprise::process
