#include "client/cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::cli {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(50);
constexpr size_t kLogTailLines = 10;

absl::Status Errno(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// In the child, between fork and exec: only what is safe there.
[[noreturn]] void Exec(const ChildOptions& options, std::vector<char*>& argv, int out, int log,
                       pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);  // Ctrl-C is for `up`, which then stops its servers in order
  // Nobody is left to wait for an orderly stop, and a server that hangs would never make one.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_FAILURE);  // it died before the line above
  dup2(out, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execv(options.executable.c_str(), argv.data());
  _exit(127);  // as a shell says "not found"
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const ChildOptions& options) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return Errno("pipe");
  const int log = open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) {
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return Errno(options.log_path);
  }
  std::vector<std::string> words = {options.executable};
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Exec(options, argv, pipe_ends[1], log, parent);
  close(pipe_ends[1]);
  close(log);
  if (pid < 0) {
    close(pipe_ends[0]);
    return Errno("fork");
  }
  ChildProcess child;
  child.name_ = options.name;
  child.log_path_ = options.log_path;
  child.pid_ = pid;
  child.stdout_ = pipe_ends[0];
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : name_(std::move(other.name_)),
      log_path_(std::move(other.log_path_)),
      pid_(std::exchange(other.pid_, 0)),
      stdout_(std::exchange(other.stdout_, -1)),
      ended_(other.ended_) {}

ChildProcess::~ChildProcess() {
  if (stdout_ >= 0) close(stdout_);
  if (!running()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

absl::StatusOr<std::string> ChildProcess::FirstLine(absl::Time deadline,
                                                    const std::function<bool()>& stopped) {
  std::string line;
  while (absl::Now() < deadline) {
    if (stopped()) return absl::CancelledError("stopped");
    pollfd ready = {.fd = stdout_, .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(kPollInterval))) <= 0) continue;
    char byte = 0;
    const ssize_t got = read(stdout_, &byte, 1);
    if (got == 1 && byte == '\n') return line;
    if (got == 1) {
      line.push_back(byte);
    } else if (got == 0) {
      return Refusal(
          absl::StatusCode::kUnavailable, "CHILD_ENDED",
          absl::StrCat(name_, " ended before it served. Its log ends with:\n", LogTail()));
    }
  }
  return absl::DeadlineExceededError(
      absl::StrCat(name_, " did not begin to serve. Its log ends with:\n", LogTail()));
}

std::string ChildProcess::Ended(int wait_status) {
  ended_ = true;
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("was killed by signal ", WTERMSIG(wait_status), " (",
                        strsignal(WTERMSIG(wait_status)), ")");
  }
  return absl::StrCat("exited with code ", WEXITSTATUS(wait_status));
}

void ChildProcess::Signal(int signal) const {
  if (running()) kill(pid_, signal);
}

bool ChildProcess::Join(absl::Time deadline) {
  while (running()) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      ended_ = true;
    } else if (absl::Now() >= deadline) {
      return false;
    } else {
      absl::SleepFor(kPollInterval);
    }
  }
  return true;
}

std::string ChildProcess::LogTail() const {
  std::ifstream log(log_path_);
  std::deque<std::string> lines;
  for (std::string line; std::getline(log, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > kLogTailLines) lines.pop_front();
  }
  return lines.empty() ? "(nothing)" : absl::StrJoin(lines, "\n");
}

absl::StatusOr<std::string> FindExecutable(const std::string& name) {
  std::string folder;
  if (const char* given = std::getenv("REPRISE_BIN"); given != nullptr && *given != '\0') {
    folder = given;
  } else {
    char self[PATH_MAX];
    const ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self));
    if (bytes < 0) return Errno("/proc/self/exe");
    folder.assign(self, static_cast<size_t>(bytes));
    folder.resize(folder.rfind('/'));
  }
  std::string path = absl::StrCat(folder, "/", name);
  if (access(path.c_str(), X_OK) == 0) return path;
  return Refusal(absl::StatusCode::kNotFound, "EXECUTABLE",
                 absl::StrCat("there is no executable ", path,
                              ": install it beside `reprise`, or set REPRISE_BIN to "
                              "the folder that has it"));
}

}  // namespace reprise::cli
