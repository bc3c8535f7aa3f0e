#include "cluster/membership/static_file_membership.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cluster/membership/members_file.h"
#include "cluster/membership/membership_board.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

// NOT_FOUND when there is no such file or nothing in it.
absl::StatusOr<std::string> ReadMembersFile(const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
  if (file == nullptr) {
    const int error = errno;
    const auto code =
        error == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kUnavailable;
    return Refusal(code, "MEMBERS_FILE", absl::StrCat("cannot open it: ", std::strerror(error)));
  }
  std::string text(limits::kMembersFileBytesMax + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) {
    return Refusal(absl::StatusCode::kUnavailable, "MEMBERS_FILE", "cannot read it");
  }
  if (text.size() > limits::kMembersFileBytesMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "MEMBERS_FILE",
                   absl::StrCat("it has more than kMembersFileBytesMax = ",
                                limits::kMembersFileBytesMax, " bytes"));
  }
  if (absl::StripAsciiWhitespace(text).empty()) {
    return Refusal(absl::StatusCode::kNotFound, "MEMBERS_FILE", "it is empty");
  }
  return text;
}

class StaticFileMembershipImpl final : public StaticFileMembership {
 public:
  explicit StaticFileMembershipImpl(StaticFileMembershipOptions options)
      : options_(std::move(options)), board_(absl::StrCat("file ", options_.path), options_.log) {}

  ~StaticFileMembershipImpl() override {
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    if (poller_.joinable()) poller_.join();
  }

  absl::Status Start() {
    const absl::Status first = Look();
    if (!first.ok() && !absl::IsNotFound(first)) {
      return absl::Status(first.code(), absl::StrCat(options_.path, ": ", first.message()));
    }
    poller_ = std::thread([this] { Poll(); });
    return absl::OkStatus();
  }

  std::vector<Member> Members() const override { return board_.Members(); }
  MembershipState State() const override { return board_.State(); }
  std::unique_ptr<MembershipWatch> Watch(OnChange on_change) override {
    return board_.Watch(std::move(on_change));
  }

 private:
  // Reads and, when the text is new, publishes. The status says what is wrong with the file now.
  absl::Status Look() {
    REPRISE_ASSIGN_OR_RETURN(std::string text, ReadMembersFile(options_.path));
    if (text == text_) return status_of_text_;
    absl::StatusOr<std::vector<Member>> members = ParseMembersFile(text);
    text_ = std::move(text);
    status_of_text_ = members.status();
    if (members.ok()) board_.Publish(*std::move(members));
    return status_of_text_;
  }

  void Poll() {
    while (!WaitToStop()) {
      const absl::Status status = Look();
      // A file that is not there yet is how every cluster starts.
      const bool waiting = absl::IsNotFound(status) && board_.Members().empty();
      board_.NoteTrouble(status.ok() || waiting ? "" : status.message(), MonotonicClock().Now());
    }
  }

  bool WaitToStop() {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&stopping_), options_.poll_interval);
  }

  const StaticFileMembershipOptions options_;
  MembershipBoard board_;
  std::string text_;             // Start, then the poller alone
  absl::Status status_of_text_;  // likewise
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread poller_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StaticFileMembership>> StaticFileMembership::Create(
    StaticFileMembershipOptions options) {
  auto membership = std::make_unique<StaticFileMembershipImpl>(std::move(options));
  REPRISE_RETURN_IF_ERROR(membership->Start());
  return membership;
}

}  // namespace reprise::cluster
