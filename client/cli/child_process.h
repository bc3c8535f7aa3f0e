// A server that `reprise up` runs: started with its own log file, known to serve when it has
// printed its one line of JSON, stopped with SIGTERM. It is killed when this process dies, however
// that dies.
//
// Thread safety: one thread, before any other thread is started (fork).
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace reprise::cli {

struct ChildOptions {
  std::string name;                    // for people, e.g. "shard-0"
  std::string executable;              // path
  std::vector<std::string> arguments;  // without the executable
  std::string log_path;                // gets its stderr
};

class ChildProcess {
 public:
  static absl::StatusOr<ChildProcess> Start(const ChildOptions& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ~ChildProcess();  // SIGKILL when it still runs

  // The first line that it prints. UNAVAILABLE, with the end of its log, when it ends before;
  // DEADLINE_EXCEEDED; CANCELLED when `stopped` says so.
  absl::StatusOr<std::string> FirstLine(absl::Time deadline, const std::function<bool()>& stopped);

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0 && !ended_; }
  // It ended; waitpid() gave `wait_status`. Returns how, for people.
  std::string Ended(int wait_status);
  void Signal(int signal) const;
  // Waits for its end; false when it still runs at `deadline`.
  bool Join(absl::Time deadline);
  std::string LogTail() const;

 private:
  ChildProcess() = default;
  std::string name_;
  std::string log_path_;
  pid_t pid_ = 0;
  int stdout_ = -1;
  bool ended_ = false;
};

// Where the servers are: $REPRISE_BIN, else beside this executable. NOT_FOUND with what to do.
absl::StatusOr<std::string> FindExecutable(const std::string& name);

}  // namespace reprise::cli
