// A child process of a test: started, read from, stopped, gone on, killed, and never left behind.
//
// Invariants: the child dies with the test (SIGKILL at destruction, and by the kernel when the test
// itself dies) and is reaped. Only its own pid is ever signalled.
//
// Thread safety: one thread.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {

// The folder of the executables: $REPRISE_BIN, else where this test lies.
inline std::string BinFolder() {
  if (const char* folder = std::getenv("REPRISE_BIN"); folder != nullptr) return folder;
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  REPRISE_CHECK(length > 0);
  const std::string self(path, static_cast<size_t>(length));
  return self.substr(0, self.rfind('/'));
}

class Process {
 public:
  // Starts `arguments[0]` with the rest. Its stdout is read by ReadLine, its stderr is ours.
  explicit Process(const std::vector<std::string>& arguments) {
    int out[2];
    REPRISE_CHECK(pipe2(out, O_CLOEXEC) == 0);
    std::vector<char*> argv;
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    const pid_t parent = getpid();
    pid_ = fork();
    REPRISE_CHECK(pid_ >= 0);
    if (pid_ == 0) {  // only async-signal-safe calls from here
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(127);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      dup2(out[1], STDOUT_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(out[1]);
    out_ = out[0];
  }
  ~Process() {
    if (!exit_status_.has_value()) {
      Signal(SIGKILL);
      Wait(absl::InfiniteDuration());
    }
    close(out_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }

  // One line of its stdout without the line's end; nullopt when none came in time or the child
  // closed it.
  std::optional<std::string> ReadLine(absl::Duration timeout) {
    const absl::Time deadline = absl::Now() + timeout;
    while (true) {
      const size_t end = read_.find('\n');
      if (end != std::string::npos) {
        std::string line = read_.substr(0, end);
        read_.erase(0, end + 1);
        return line;
      }
      pollfd ready = {.fd = out_, .events = POLLIN, .revents = 0};
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
      if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) return std::nullopt;
      char buffer[4096];
      const ssize_t bytes = read(out_, buffer, sizeof(buffer));
      if (bytes <= 0) return std::nullopt;
      read_.append(buffer, static_cast<size_t>(bytes));
    }
  }

  void Signal(int signal) {
    if (!exit_status_.has_value()) kill(pid_, signal);
  }
  void Kill() { Signal(SIGKILL); }
  void Stop() {
    Signal(SIGSTOP);
    int status = 0;
    while (waitpid(pid_, &status, WUNTRACED) == -1 && errno == EINTR) {
    }
    REPRISE_CHECK(WIFSTOPPED(status));
  }
  void Continue() { Signal(SIGCONT); }

  // How it ended, as waitpid says; nullopt when it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout) {
    const absl::Time deadline = absl::Now() + timeout;
    while (!exit_status_.has_value()) {
      int status = 0;
      const pid_t reaped = waitpid(pid_, &status, WNOHANG);
      if (reaped == pid_) {
        exit_status_ = status;
        break;
      }
      if (absl::Now() >= deadline) return std::nullopt;
      poll(nullptr, 0, 5);
    }
    return exit_status_;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  std::string read_;
  std::optional<int> exit_status_;
};

}  // namespace reprise::testing
