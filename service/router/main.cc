// reprise-router: tells workers and gateways where blocks are.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/membership/in_memory_membership.h"
#include "cluster/membership/members_file.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/process/membership_flags.h"
#include "service/process/server_process.h"
#include "service/process/tls_flags.h"
#include "service/router/router_process.h"
#include "service/telemetry/status_port.h"

namespace reprise::router {
namespace {

using process::Log;

struct Flags {
  std::string listen = "127.0.0.1:0";
  process::MembershipFlags members;
  std::vector<std::string> shards;
  std::string output = "text";
  bool insecure = false;
  double grace_seconds = absl::ToDoubleSeconds(limits::kStopGrace);
  process::TlsFlags tls;
  telemetry::StatusPortOptions status;
};

constexpr char kFooter[] =
    "Every other limit is fixed and shown by `reprise describe --limits`\n"
    "(RouterService.Describe).\n"
    "SIGTERM or SIGINT: answer what is in flight, exit 0.";

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen, "host:port to serve on; port 0: a free one")
      ->capture_default_str();
  flags.members.AddTo(app, "");
  app.add_option("--shard", flags.shards,
                 "A shard as ID=HOST:PORT, instead of a file, a name or etcd; repeatable");
  app.add_option("--grace", flags.grace_seconds, "Seconds for what is in flight when stopped")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  flags.tls.AddTo(app);
  app.add_flag("--insecure", flags.insecure, "Serve plaintext on an address that is not loopback");
  process::AddStatusFlags(app, flags.status.listen, flags.status.public_address);
  app.add_option("-o,--output", flags.output, "What to print when serving")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.set_version_flag("--version", REPRISE_VERSION);
  app.footer(kFooter);
}

// `status`: nullptr when there is no status port.
void PrintServing(const Flags& flags, const std::string& address,
                  const telemetry::HttpServer* status) {
  if (flags.output == "json") {
    nlohmann::json line = {{"address", address}, {"pid", static_cast<int64_t>(getpid())}};
    if (status != nullptr) line["status_address"] = status->address();
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("router serves %s%s (pid %d)\n", address.c_str(),
                status == nullptr ? "" : absl::StrCat(", status ", status->address()).c_str(),
                getpid());
  }
  std::fflush(stdout);
}

absl::StatusOr<std::vector<cluster::Member>> ParseShards(const std::vector<std::string>& texts) {
  std::vector<cluster::Member> members;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      return Refusal(absl::StatusCode::kInvalidArgument, "SHARD_FLAG",
                     absl::StrCat("--shard ", text, " is no ID=HOST:PORT"));
    }
    cluster::Member member = {.id = {text.substr(0, equals)}, .address = text.substr(equals + 1)};
    REPRISE_RETURN_IF_ERROR(cluster::ValidateMember(member));
    for (const cluster::Member& other : members) {
      if (other.id != member.id) continue;
      return Refusal(absl::StatusCode::kInvalidArgument, "SHARD_FLAG",
                     absl::StrCat("--shard ", text, ": the id is given twice"));
    }
    members.push_back(std::move(member));
  }
  return members;
}

absl::StatusOr<std::unique_ptr<cluster::Membership>> MembershipOf(const Flags& flags) {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<cluster::Membership> membership,
                           flags.members.Open(Log));
  if (membership == nullptr) {
    REPRISE_ASSIGN_OR_RETURN(std::vector<cluster::Member> members, ParseShards(flags.shards));
    return std::make_unique<cluster::InMemoryMembership>(std::move(members));
  }
  if (flags.shards.empty()) return membership;
  return Refusal(absl::StatusCode::kInvalidArgument, "SHARD_FLAG",
                 "--shard names the members, and so does --members, --members-dns or --etcd: give "
                 "one of them");
}

absl::Status Run(const Flags& flags, const process::StopSignals& stop_signals) {
  REPRISE_ASSIGN_OR_RETURN(const process::Security security, flags.tls.Open());
  Log(security.summary);
  REPRISE_RETURN_IF_ERROR(telemetry::CheckStatusPort(flags.status));
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<cluster::Membership> membership,
                           MembershipOf(flags));
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<RouterProcess> process,
                           RouterProcess::Start({.listen = flags.listen,
                                                 .insecure = flags.insecure,
                                                 .credentials = security.credentials,
                                                 .access = security.access,
                                                 .membership = membership.get(),
                                                 .time_calls = !flags.status.listen.empty(),
                                                 .log = Log}));
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::HttpServer> status,
                           telemetry::OpenStatusPort(flags.status, process->status()));
  PrintServing(flags, process->address(), status.get());
  stop_signals.Await();
  process->Stop(absl::Seconds(flags.grace_seconds));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const process::StopSignals stop_signals;
  Flags flags;
  CLI::App app{"A Reprise router: tells workers which shard holds what."};
  AddFlags(app, flags);
  if (const std::optional<int> code = process::Parse(app, argc, argv)) return *code;
  process::TakeDescriptors();
  process::OpenLog("router");
  const absl::Status status = Run(flags, stop_signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reprise-router: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace reprise::router

int main(int argc, char** argv) {
  return reprise::router::Main(argc, argv);
}
