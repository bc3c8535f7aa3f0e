// A LaneHostControl whose host and view server are in another process.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/status_macros.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::testing {

class ViewHostProcess final : public LaneHostControl {
 public:
  struct Options {
    std::string program = REPRISE_VIEW_HOST;
    std::string memory;    // of its slots, for a program that has several
    std::string fake_gpu;  // its REPRISE_FAKE_GPU; ours is not inherited
  };

  explicit ViewHostProcess(AttachmentId attachment) : ViewHostProcess(attachment, Options()) {}
  ViewHostProcess(AttachmentId attachment, Options options) {
    int to[2], from[2];
    REPRISE_CHECK(::pipe2(to, O_CLOEXEC) == 0 && ::pipe2(from, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    ::posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    std::string id = absl::StrCat(attachment.value);
    char* argv[] = {options.program.data(), id.data(), options.memory.data(), nullptr};
    std::string fake_gpu = absl::StrCat("REPRISE_FAKE_GPU=", options.fake_gpu);
    std::vector<char*> environment = {fake_gpu.data()};
    for (char** variable = environ; *variable != nullptr; ++variable) {
      if (!absl::StartsWith(*variable, "REPRISE_FAKE_GPU=")) environment.push_back(*variable);
    }
    environment.push_back(nullptr);
    REPRISE_CHECK(::posix_spawn(&pid_, options.program.c_str(), &actions, nullptr, argv,
                                environment.data()) == 0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    to_ = ::fdopen(to[1], "w");
    from_ = ::fdopen(from[0], "r");
    address_ = Line();
  }
  ~ViewHostProcess() override {
    std::fclose(to_);
    std::fclose(from_);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  }

  const std::string& address() const { return address_; }
  // SIGKILL, and gone when it returns.
  void Kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void EndAttachment() { Ask("end_attachment"); }
  uint64_t Shares() { return Ask("shares"); }
  uint64_t Unshared() { return Ask("unshared"); }
  void Pause() { ::kill(pid_, SIGSTOP); }
  void Resume() { ::kill(pid_, SIGCONT); }

  LeaseId Lease(const LeaseShape& s) override {
    return LeaseId(
        Ask(absl::StrCat("lease ", s.seed, " ", s.first_block, " ", s.blocks, " ", s.block_bytes)));
  }
  ReservationId Reserve(uint32_t blocks, uint64_t block_bytes) override {
    return ReservationId(Ask(absl::StrCat("reserve ", blocks, " ", block_bytes)));
  }
  LeaseId LeaseWritten(ReservationId r) override {
    return LeaseId(Ask(absl::StrCat("lease_written ", r.value)));
  }
  void EndLease(LeaseId lease) override { Ask(absl::StrCat("end_lease ", lease.value)); }
  void EndReservation(ReservationId r) override { Ask(absl::StrCat("end_reservation ", r.value)); }
  void RefuseWrites(ReservationId r, uint32_t block) override {
    Ask(absl::StrCat("refuse_writes ", r.value, " ", block));
  }
  uint64_t BytesWritten(ReservationId r, uint32_t block) override {
    return Ask(absl::StrCat("bytes_written ", r.value, " ", block));
  }
  void Stall() override { Ask("stall"); }
  void Unstall() override { Ask("unstall"); }
  bool AwaitNoPins(absl::Duration timeout) override {
    return Ask(absl::StrCat("await_no_pins ", absl::ToInt64Milliseconds(timeout))) == 1;
  }

 private:
  uint64_t Ask(const std::string& command) {
    absl::MutexLock lock(&mu_);
    std::fprintf(to_, "%s\n", command.c_str());
    std::fflush(to_);
    return std::stoull(Line());
  }
  std::string Line() {
    char line[256] = {};
    REPRISE_CHECK(std::fgets(line, sizeof(line), from_) != nullptr);
    std::string text(line);
    text.pop_back();
    return text;
  }

  pid_t pid_ = -1;
  absl::Mutex mu_;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  std::string address_;
};

}  // namespace reprise::testing
