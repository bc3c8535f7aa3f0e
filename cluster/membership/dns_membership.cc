#include "cluster/membership/dns_membership.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "cluster/membership/members_file.h"
#include "cluster/membership/membership_board.h"
#include "proto/types/clock.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

constexpr absl::string_view kService = "_grpc._tcp.";
constexpr size_t kDnsNameBytesMax = 253;  // RFC 1035, 2.3.4, as text without the last dot
constexpr size_t kDnsLabelBytesMax = 63;
constexpr unsigned kTruncatedBit = 0x02;  // of a message's third byte (RFC 1035, 4.1.1)

// c-ares counts its users without a lock, and gRPC, on threads of its own, is one of them. So it is
// counted here before there are threads, and for good: at zero, c-ares would reset what a question
// may be using.
const int kAresInitialised = ares_library_init(ARES_LIB_INIT_ALL);

absl::Status Bad(absl::StatusCode code, absl::string_view sentence) {
  return Refusal(code, "MEMBERS_DNS", sentence);
}

bool IsLabel(absl::string_view label) {
  return !label.empty() && label.size() <= kDnsLabelBytesMax &&
         absl::ascii_isalnum(label.front()) && absl::ascii_isalnum(label.back()) &&
         std::all_of(label.begin(), label.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; });
}

absl::Status ValidateName(absl::string_view name) {
  const absl::string_view undotted = absl::StripSuffix(name, ".");
  const std::vector<absl::string_view> labels = absl::StrSplit(undotted, '.');
  if (kService.size() + undotted.size() > kDnsNameBytesMax ||
      !std::all_of(labels.begin(), labels.end(), IsLabel)) {
    return Bad(absl::StatusCode::kInvalidArgument,
               absl::StrCat("\"", name.substr(0, kDnsNameBytesMax),
                            "\" is no DNS name of members: give a headless Service's, without a "
                            "port or \"",
                            kService, "\", e.g. reprise-shard"));
  }
  return absl::OkStatus();
}

// A descriptor that a wait can end on, from the first Raise on for ever.
class StopSignal {
 public:
  StopSignal() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~StopSignal() {
    if (fd_ >= 0) ::close(fd_);
  }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool ok() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  void Raise() { ::eventfd_write(fd_, 1); }

 private:
  const int fd_;
};

// poll() until `deadline` of the monotonic clock, or a signal to the process.
void PollUntil(std::vector<pollfd>& waited, absl::Time deadline) {
  // Rounded up: a wait that ends just before its time would be followed by many of no length.
  const absl::Duration left = absl::Ceil(deadline - MonotonicClock().Now(), absl::Milliseconds(1));
  const int64_t left_ms =
      std::clamp<int64_t>(absl::ToInt64Milliseconds(left), 0, std::numeric_limits<int>::max());
  if (::poll(waited.data(), waited.size(), static_cast<int>(left_ms)) <= 0) {
    for (pollfd& one : waited) one.revents = 0;
  }
}

struct ChannelEnd {
  void operator()(ares_channel channel) const { ares_destroy(channel); }
};
using Channel = std::unique_ptr<ares_channeldata, ChannelEnd>;

// One per question: it has ports of its own, which makes an answer hard to forge, and resolv.conf
// as it is now.
absl::StatusOr<Channel> MakeChannel(const DnsMembershipOptions& options) {
  // Two attempts at a server, the second twice as long as the first, fill the time.
  ares_options settings = {};
  settings.timeout = static_cast<int>(std::clamp<int64_t>(
      absl::ToInt64Milliseconds(options.timeout / 3), 1, std::numeric_limits<int>::max() / 4));
  settings.tries = 2;
  ares_channel made = nullptr;
  if (const int status = ares_init_options(&made, &settings, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
      status != ARES_SUCCESS) {
    return Bad(absl::StatusCode::kUnavailable,
               absl::StrCat("the DNS resolver does not start: ", ares_strerror(status)));
  }
  Channel channel(made);
  if (options.servers.empty()) return channel;
  if (const int status = ares_set_servers_ports_csv(made, options.servers.c_str());
      status != ARES_SUCCESS) {
    return Bad(absl::StatusCode::kInvalidArgument,
               absl::StrCat("DNS servers \"", options.servers,
                            "\" are not ADDRESS:PORT,...: ", ares_strerror(status)));
  }
  return channel;
}

absl::Status NoAnswer(const std::string& question, absl::Duration timeout) {
  return Bad(absl::StatusCode::kUnavailable,
             absl::StrCat("no DNS server answers for ", question, " within ",
                          absl::FormatDuration(timeout),
                          ": check the servers in resolv.conf, and that they are reached at port "
                          "53 over UDP and TCP"));
}

absl::Status NoRecords(const std::string& question) {
  return Bad(absl::StatusCode::kNotFound,
             absl::StrCat(question,
                          " has no SRV records: check that the Service is headless "
                          "(clusterIP: None) with a port named grpc, and has shards"));
}

// Why c-ares has no answer.
absl::Status Failure(int status, const std::string& question, absl::Duration timeout) {
  switch (status) {
    case ARES_ENOTFOUND:
      return Bad(absl::StatusCode::kNotFound,
                 absl::StrCat(question,
                              " does not exist: check that there is a headless Service "
                              "of this name, with a port named grpc, and the namespace "
                              "that it is looked for in"));
    case ARES_ENODATA:
      return NoRecords(question);
    case ARES_ETIMEOUT:
      return NoAnswer(question, timeout);
    case ARES_ECONNREFUSED:  // also when each server answered SERVFAIL, NOTIMP or REFUSED
      return Bad(absl::StatusCode::kUnavailable,
                 absl::StrCat("no DNS server has an answer for ", question,
                              ": they refuse the connection or fail (SERVFAIL, REFUSED): check "
                              "resolv.conf and their logs"));
    default:
      return Bad(absl::StatusCode::kUnavailable,
                 absl::StrCat("the answer for ", question, " is of no use (", ares_strerror(status),
                              "): check what answers at the addresses in resolv.conf"));
  }
}

// The members of the records in any order, sorted; or why they are refused, in words that do not
// depend on the order.
absl::StatusOr<std::vector<Member>> MembersOf(const ares_srv_reply* records,
                                              const std::string& question) {
  const auto refused = [&](absl::string_view sentence) {
    return Bad(absl::StatusCode::kInvalidArgument,
               absl::StrCat("the answer for ", question, " is refused: ", sentence));
  };
  std::vector<Member> members;
  for (const ares_srv_reply* one = records; one != nullptr; one = one->next) {
    const absl::string_view target = one->host;  // c-ares leaves the last dot out
    members.push_back({.id = {std::string(target.substr(0, target.find('.')))},
                       .address = absl::StrCat(target, ":", one->port)});
  }
  std::sort(members.begin(), members.end(), [](const Member& a, const Member& b) {
    return std::tie(a.id.name, a.address) < std::tie(b.id.name, b.address);
  });
  members.erase(std::unique(members.begin(), members.end()), members.end());
  if (members.empty()) return NoRecords(question);
  if (members.size() > limits::kShardsMax) {
    return refused(absl::StrCat("it has ", members.size(), " shards, more than kShardsMax = ",
                                limits::kShardsMax, ": run a second cluster"));
  }
  for (size_t i = 0; i < members.size(); ++i) {
    if (const absl::Status valid = ValidateMember(members[i]); !valid.ok()) {
      return refused(valid.message());
    }
    if (i > 0 && members[i].id == members[i - 1].id) {
      return refused(absl::StrCat("two targets are named \"", members[i].id.name, "\", ",
                                  members[i - 1].address, " and ", members[i].address,
                                  ": give the Service the pods of one StatefulSet alone"));
    }
  }
  return members;
}

struct Reply {
  const std::string question;
  const absl::Duration timeout;
  bool came = false;
  absl::StatusOr<std::vector<Member>> members = absl::UnknownError("no reply");
};

absl::StatusOr<std::vector<Member>> ReadReply(const Reply& reply, int status,
                                              const unsigned char* bytes, int size) {
  if (status != ARES_SUCCESS) return Failure(status, reply.question, reply.timeout);
  ares_srv_reply* parsed = nullptr;
  status = ares_parse_srv_reply(bytes, size, &parsed);
  const std::unique_ptr<ares_srv_reply, void (*)(void*)> records(parsed, ares_free_data);
  if (status != ARES_SUCCESS) return Failure(status, reply.question, reply.timeout);
  if ((bytes[2] & kTruncatedBit) != 0) {  // c-ares asks over TCP then, and does not look there
    return Bad(absl::StatusCode::kInvalidArgument,
               absl::StrCat("the answer for ", reply.question,
                            " is cut off even over TCP: check whether the names of all shards "
                            "fit into 64 KiB"));
  }
  return MembersOf(records.get(), reply.question);
}

void OnReply(void* of, int status, int /*timeouts*/, unsigned char* bytes, int size) {
  auto& reply = *static_cast<Reply*>(of);
  reply.members = ReadReply(reply, status, bytes, size);
  reply.came = true;
}

// Waits until c-ares has something to do, at most until `deadline`, and lets it. False: stopped.
bool Step(ares_channel channel, const StopSignal& stop, absl::Time deadline) {
  std::vector<pollfd> waited = {{.fd = stop.fd(), .events = POLLIN, .revents = 0}};
  ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
  const int wishes = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
  for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    const int events = (ARES_GETSOCK_READABLE(wishes, i) != 0 ? POLLIN : 0) |
                       (ARES_GETSOCK_WRITABLE(wishes, i) != 0 ? POLLOUT : 0);
    if (events == 0) break;
    waited.push_back({.fd = sockets[i], .events = static_cast<short>(events), .revents = 0});
  }
  timeval next = {};
  if (ares_timeout(channel, nullptr, &next) != nullptr) {
    deadline = std::min(deadline, MonotonicClock().Now() + absl::DurationFromTimeval(next));
  }
  PollUntil(waited, deadline);
  if (waited[0].revents != 0) return false;
  for (size_t i = 1; i < waited.size(); ++i) {
    const bool readable = (waited[i].revents & ~POLLOUT) != 0;
    const bool writable = (waited[i].revents & POLLOUT) != 0;
    if (!readable && !writable) continue;
    ares_process_fd(channel, readable ? waited[i].fd : ARES_SOCKET_BAD,
                    writable ? waited[i].fd : ARES_SOCKET_BAD);
  }
  ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // whose time is over
  return true;
}

// NOT_FOUND when the name has no records, CANCELLED when stopped.
absl::StatusOr<std::vector<Member>> Ask(const DnsMembershipOptions& options,
                                        const StopSignal& stop) {
  const std::string asked = absl::StrCat(kService, options.name);
  // Before the channel, and so outlives it: its end calls OnReply for what is still open.
  Reply reply = {.question = absl::StrCat("\"", asked, "\""), .timeout = options.timeout};
  REPRISE_ASSIGN_OR_RETURN(const Channel channel, MakeChannel(options));
  const absl::Time deadline = MonotonicClock().Now() + options.timeout;
  ares_search(channel.get(), asked.c_str(), ns_c_in, ns_t_srv, OnReply, &reply);
  while (!reply.came) {
    if (MonotonicClock().Now() >= deadline) return NoAnswer(reply.question, options.timeout);
    if (!Step(channel.get(), stop, deadline)) return absl::CancelledError();
  }
  return std::move(reply.members);
}

class DnsMembershipImpl final : public DnsMembership {
 public:
  explicit DnsMembershipImpl(DnsMembershipOptions options)
      : options_(std::move(options)),
        board_(absl::StrCat("DNS name ", kService, options_.name), options_.log) {}

  ~DnsMembershipImpl() override {
    if (!asker_.joinable()) return;
    stop_.Raise();
    asker_.join();
  }

  absl::Status Start() {
    if (!stop_.ok()) {
      return Bad(absl::StatusCode::kUnavailable, "the process has no descriptor left");
    }
    asker_ = std::thread([this] { AskOn(); });
    return absl::OkStatus();
  }

  std::vector<Member> Members() const override { return board_.Members(); }
  MembershipState State() const override { return board_.State(); }
  std::unique_ptr<MembershipWatch> Watch(OnChange on_change) override {
    return board_.Watch(std::move(on_change));
  }

 private:
  void AskOn() {
    absl::Time next;
    do {
      next = MonotonicClock().Now() + options_.interval;
      Look();
    } while (!WaitToStop(next));
  }

  void Look() {
    absl::StatusOr<std::vector<Member>> members = Ask(options_, stop_);
    if (absl::IsCancelled(members.status())) return;
    // A name that is not there yet is how every cluster starts. (No good answer is empty.)
    const bool waiting = absl::IsNotFound(members.status()) && board_.Members().empty();
    if (waiting && !std::exchange(told_to_wait_, true) && options_.log) {
      options_.log(absl::StrCat("members: none yet: ", members.status().message()));
    }
    const std::string trouble =
        members.ok() || waiting ? std::string() : std::string(members.status().message());
    if (members.ok()) board_.Publish(*std::move(members));
    board_.NoteTrouble(trouble, MonotonicClock().Now());
  }

  bool WaitToStop(absl::Time until) {
    std::vector<pollfd> waited = {{.fd = stop_.fd(), .events = POLLIN, .revents = 0}};
    do {
      PollUntil(waited, until);
    } while (waited[0].revents == 0 && MonotonicClock().Now() < until);
    return waited[0].revents != 0;
  }

  const DnsMembershipOptions options_;
  MembershipBoard board_;
  StopSignal stop_;
  bool told_to_wait_ = false;  // the asker's alone
  std::thread asker_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DnsMembership>> DnsMembership::Create(DnsMembershipOptions options) {
  REPRISE_CHECK(options.interval > absl::ZeroDuration() && options.timeout > absl::ZeroDuration());
  if (kAresInitialised != ARES_SUCCESS) {
    return Bad(absl::StatusCode::kUnavailable,
               absl::StrCat("c-ares does not start: ", ares_strerror(kAresInitialised)));
  }
  REPRISE_RETURN_IF_ERROR(ValidateName(options.name));
  REPRISE_RETURN_IF_ERROR(MakeChannel(options).status());  // for its servers
  auto membership = std::make_unique<DnsMembershipImpl>(std::move(options));
  REPRISE_RETURN_IF_ERROR(membership->Start());
  return membership;
}

}  // namespace reprise::cluster
