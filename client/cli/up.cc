// `reprise up`: a router and some shards on this machine, in the foreground.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/child_process.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "nlohmann/json.hpp"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/certificate.h"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kHost[] = "127.0.0.1";
constexpr absl::Duration kStartDeadline =
    absl::Seconds(60);  // a pool is faulted in before a shard serves
constexpr absl::Duration kStopDeadline = absl::Seconds(10);
constexpr absl::Duration kAskAgain = absl::Milliseconds(50);

struct UpOptions {
  Common common;
  uint32_t shards = 3;
  std::string dram = "256MiB";
  std::string hbm;
  std::string nvme;
  std::string nvme_dir;
  std::string nvme_cipher = "aes-256";
  std::string nvme_key;
  bool nvme_keep = false;
  int gpu = -1;
  uint32_t replication = 2;
  std::vector<std::string> tenant_quotas;
  std::string tenant_quota_default;
  std::string eviction = "learned";
  uint16_t router_port = 0;
  uint16_t port_base = 0;
  std::string folder;
  TlsOptions tls;  // of the servers, and of `up` itself; none(): plaintext
  bool status = false;
};

// Signals that end `up`, and SIGCHLD, are blocked for good and asked for where it suits.
sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGCHLD);
  return set;
}

// A private folder for members file and logs; removed at the end unless the person chose it.
class Folder {
 public:
  static absl::StatusOr<std::unique_ptr<Folder>> Create(const std::string& chosen) {
    if (!chosen.empty()) {
      if (mkdir(chosen.c_str(), 0700) != 0 && errno != EEXIST) {
        return absl::InternalError(absl::StrCat("--folder ", chosen, ": ", strerror(errno)));
      }
      return std::unique_ptr<Folder>(new Folder(chosen, false));
    }
    const char* root = std::getenv("TMPDIR");
    std::string path =
        absl::StrCat(root != nullptr && *root != '\0' ? root : "/tmp", "/reprise-up-XXXXXX");
    if (mkdtemp(path.data()) == nullptr)
      return absl::InternalError(absl::StrCat(path, ": ", strerror(errno)));
    return std::unique_ptr<Folder>(new Folder(path, true));
  }
  ~Folder() {
    if (!own_) return;
    for (const std::string& file : files_) unlink(file.c_str());
    rmdir(path_.c_str());
  }
  // A file that goes with the folder.
  std::string File(const std::string& name) {
    files_.push_back(absl::StrCat(path_, "/", name));
    return files_.back();
  }
  void Keep() { own_ = false; }

 private:
  Folder(std::string path, bool own) : path_(std::move(path)), own_(own) {}
  const std::string path_;
  bool own_;
  std::vector<std::string> files_;
};

class Up {
 public:
  explicit Up(const UpOptions& options) : options_(options) {}

  ExitCode Run() {
    const sigset_t signals = Signals();
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    const absl::Status started = Start();
    if (started.ok()) {
      Announce();
      Watch();
    }
    Stop();
    if (started.ok() || absl::IsCancelled(started)) return ExitCode::kOk;
    if (folder_ != nullptr) folder_->Keep();
    return Complain(started);
  }

 private:
  // Where a server is, as it says itself.
  struct Addresses {
    std::string grpc;
    std::string status;  // empty: it has no status port
  };
  struct Shard {
    std::string id;
    Addresses at;
    pid_t pid = 0;
  };

  absl::Status Start() {
    REPRISE_ASSIGN_OR_RETURN(const std::string shard_path, FindExecutable("reprise-shard"));
    REPRISE_ASSIGN_OR_RETURN(const std::string router_path, FindExecutable("reprise-router"));
    REPRISE_RETURN_IF_ERROR(ParseBytes(options_.dram, "--dram").status());
    REPRISE_RETURN_IF_ERROR(LoadCredentials());
    REPRISE_ASSIGN_OR_RETURN(folder_, Folder::Create(options_.folder));
    members_ = folder_->File("members.yaml");
    Progress progress(absl::StrCat("starting ", options_.shards, " shards"));
    const absl::Time deadline = absl::Now() + kStartDeadline;
    for (uint32_t i = 0; i < options_.shards; ++i)
      REPRISE_RETURN_IF_ERROR(StartShard(shard_path, i));
    for (size_t i = 0; i < children_.size(); ++i) {
      REPRISE_ASSIGN_OR_RETURN(const std::string line, children_[i].FirstLine(deadline, [&] {
        progress.Tick(children_[i].name());
        return Interrupted();
      }));
      REPRISE_ASSIGN_OR_RETURN(shards_[i].at, AddressesIn(line, children_[i].name()));
    }
    REPRISE_RETURN_IF_ERROR(WriteMembers());
    REPRISE_RETURN_IF_ERROR(StartRouter(router_path, deadline, progress));
    return AwaitAllAlive(deadline, progress);
  }

  // The servers have the certificate that `up` has.
  absl::Status LoadCredentials() {
    if (options_.tls.none()) return absl::OkStatus();
    TlsOptions tls = options_.tls;
    REPRISE_ASSIGN_OR_RETURN(const wire::Identity identity, wire::ReadIdentity(tls));
    tls.servers = {identity.spiffe_id};
    REPRISE_ASSIGN_OR_RETURN(credentials_, wire::Credentials::Load(tls));
    return absl::OkStatus();
  }

  void AddTlsTo(std::vector<std::string>& arguments) const {
    if (options_.tls.none()) return;
    arguments.insert(arguments.end(),
                     {"--tls-ca", options_.tls.ca_file, "--tls-cert", options_.tls.certificate_file,
                      "--tls-key", options_.tls.key_file});
  }

  absl::Status StartShard(const std::string& executable, uint32_t index) {
    Shard shard{.id = absl::StrCat("shard-", index), .at = {}, .pid = 0};
    const int port = options_.port_base == 0 ? 0 : options_.port_base + static_cast<int>(index);
    ChildOptions child{
        .name = shard.id,
        .executable = executable,
        .arguments = {"--id", shard.id, "--listen", absl::StrCat(kHost, ":", port), "--dram",
                      options_.dram, "--replication", absl::StrCat(options_.replication),
                      "--eviction", options_.eviction, "--members", members_, "-o", "json"},
        .log_path = folder_->File(absl::StrCat(shard.id, ".log"))};
    if (!options_.hbm.empty()) {
      child.arguments.insert(child.arguments.end(), {"--hbm", options_.hbm});
      if (options_.gpu >= 0)
        child.arguments.insert(child.arguments.end(), {"--gpu", absl::StrCat(options_.gpu)});
    }
    if (!options_.nvme.empty()) {
      child.arguments.insert(child.arguments.end(),
                             {"--nvme", options_.nvme, "--nvme-dir", options_.nvme_dir,
                              "--nvme-cipher", options_.nvme_cipher});
      if (options_.nvme_keep) child.arguments.push_back("--nvme-keep");
      if (!options_.nvme_key.empty())
        child.arguments.insert(child.arguments.end(), {"--nvme-key", options_.nvme_key});
    }
    for (const std::string& quota : options_.tenant_quotas)
      child.arguments.insert(child.arguments.end(), {"--tenant-quota", quota});
    if (!options_.tenant_quota_default.empty()) {
      child.arguments.insert(child.arguments.end(),
                             {"--tenant-quota-default", options_.tenant_quota_default});
    }
    AddTlsTo(child.arguments);
    AddStatus(child.arguments);
    REPRISE_ASSIGN_OR_RETURN(ChildProcess started, ChildProcess::Start(child));
    shard.pid = started.pid();
    children_.push_back(std::move(started));
    shards_.push_back(std::move(shard));
    return absl::OkStatus();
  }

  absl::Status StartRouter(const std::string& executable, absl::Time deadline, Progress& progress) {
    ChildOptions child{.name = "router",
                       .executable = executable,
                       .arguments = {"--listen", absl::StrCat(kHost, ":", options_.router_port),
                                     "--members", members_, "-o", "json"},
                       .log_path = folder_->File("router.log")};
    AddTlsTo(child.arguments);
    AddStatus(child.arguments);
    REPRISE_ASSIGN_OR_RETURN(ChildProcess started, ChildProcess::Start(child));
    router_pid_ = started.pid();
    children_.push_back(std::move(started));
    REPRISE_ASSIGN_OR_RETURN(const std::string line, children_.back().FirstLine(deadline, [&] {
      progress.Tick("router");
      return Interrupted();
    }));
    REPRISE_ASSIGN_OR_RETURN(router_, AddressesIn(line, "router"));
    return absl::OkStatus();
  }

  void AddStatus(std::vector<std::string>& arguments) const {
    if (!options_.status) return;
    arguments.insert(arguments.end(), {"--status-listen", absl::StrCat(kHost, ":0")});
  }

  static absl::StatusOr<Addresses> AddressesIn(const std::string& line, const std::string& name) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("address") || !json["address"].is_string()) {
      return absl::InternalError(absl::StrCat(name, " said \"", line, "\" instead of its address"));
    }
    return Addresses{.grpc = json["address"].get<std::string>(),
                     .status = json.value("status_address", std::string())};
  }

  // In one step, since shards read it while it is written.
  absl::Status WriteMembers() {
    const std::string fresh = folder_->File("members.yaml.new");
    std::ofstream file(fresh);
    file << "shards:\n";
    for (const Shard& shard : shards_)
      file << "  - {id: " << shard.id << ", address: \"" << shard.at.grpc << "\"}\n";
    file.close();
    if (!file || std::rename(fresh.c_str(), members_.c_str()) != 0) {
      return absl::InternalError(absl::StrCat(members_, " cannot be written: ", strerror(errno)));
    }
    return absl::OkStatus();
  }

  absl::Status AwaitAllAlive(absl::Time deadline, Progress& progress) {
    std::string seen = "the router did not answer";
    while (absl::Now() < deadline) {
      if (Interrupted()) return absl::CancelledError("stopped");
      progress.Tick("waiting for the router to see every shard");
      auto description =
          DescribeRouter({router_.grpc, credentials_}, absl::Now() + absl::Seconds(1));
      if (description.ok()) {
        uint32_t alive = 0;
        for (const auto& shard : description->shards())
          alive += shard.state() == v1::SHARD_STATE_ALIVE ? 1 : 0;
        if (alive == options_.shards) return absl::OkStatus();
        seen = absl::StrCat("the router sees ", alive, " of ", options_.shards, " shards alive");
      } else {
        seen = std::string(description.status().message());
      }
      absl::SleepFor(kAskAgain);
    }
    return absl::DeadlineExceededError(seen);
  }

  // A signal to end came. Children that ended meanwhile are seen by Watch.
  bool Interrupted() {
    const sigset_t signals = Signals();
    const timespec at_once = {};
    while (!stop_) {
      const int signal = sigtimedwait(&signals, nullptr, &at_once);
      if (signal < 0) break;
      if (signal != SIGCHLD) stop_ = true;
    }
    return stop_;
  }

  void Announce() const {
    if (options_.common.json()) {
      Json json = {{"router", router_.grpc}, {"router_pid", router_pid_}};
      if (options_.status) json["router_status"] = router_.status;
      json["shards"] = Json::array();
      json["members"] = members_;
      for (const Shard& shard : shards_) {
        Json row = {{"id", shard.id}, {"address", shard.at.grpc}, {"pid", shard.pid}};
        if (options_.status) row["status_address"] = shard.at.status;
        json["shards"].push_back(std::move(row));
      }
      std::printf("%s\n", json.dump().c_str());
    } else {
      std::vector<std::string> columns = {"NAME", "ADDRESS", "PID"};
      if (options_.status) columns.push_back("STATUS");
      std::vector<std::vector<std::string>> rows = {Row("router", router_, router_pid_)};
      for (const Shard& shard : shards_) rows.push_back(Row(shard.id, shard.at, shard.pid));
      std::printf("%s", Table(columns, rows).c_str());
      std::fprintf(stderr,
                   "\nServing. In another terminal: export REPRISE_ROUTER=%s; reprise describe\n"
                   "Ctrl-C stops all.\n",
                   router_.grpc.c_str());
    }
    std::fflush(stdout);
  }

  std::vector<std::string> Row(const std::string& name, const Addresses& at, pid_t pid) const {
    std::vector<std::string> row = {name, at.grpc, absl::StrCat(pid)};
    if (options_.status) row.push_back(absl::StrCat("http://", at.status, "/"));
    return row;
  }

  // Until a signal to end. A child that dies is told about, and does not stop the others.
  void Watch() {
    const sigset_t signals = Signals();
    while (!stop_) {
      Reap();
      int signal = 0;
      if (sigwait(&signals, &signal) == 0 && signal != SIGCHLD) stop_ = true;
    }
  }

  void Reap() {
    for (ChildProcess& child : children_) {
      int status = 0;
      if (child.running() && waitpid(child.pid(), &status, WNOHANG) == child.pid()) {
        const std::string how = child.Ended(status);
        std::fprintf(stderr, "reprise: %s (pid %d) %s; the others go on\n", child.name().c_str(),
                     child.pid(), how.c_str());
      }
    }
  }

  void Stop() {
    Progress progress("stopping");
    // Not SIGTERM: shards that all stop have nobody to hand their blocks to.
    for (const ChildProcess& child : children_) child.Signal(SIGINT);
    // Continued, so that a server that was stopped by hand can end too.
    for (const ChildProcess& child : children_) child.Signal(SIGCONT);
    // With a disk that is kept, what is in memory goes there first.
    const absl::Duration saving = options_.nvme_keep ? limits::kSaveGrace : absl::ZeroDuration();
    const absl::Time deadline = absl::Now() + saving + kStopDeadline;
    for (ChildProcess& child : children_) {
      if (!child.Join(deadline)) {
        std::fprintf(stderr, "reprise: %s did not end in time and is killed\n",
                     child.name().c_str());
      }
    }
    children_.clear();
  }

  const UpOptions options_;
  std::shared_ptr<const wire::Credentials> credentials_;
  std::unique_ptr<Folder> folder_;
  std::string members_;
  std::vector<Shard> shards_;
  std::vector<ChildProcess> children_;
  Addresses router_;
  pid_t router_pid_ = 0;
  bool stop_ = false;
};

}  // namespace

Registered AddUp(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("up", "run a router and shards on this machine until Ctrl-C");
  auto options = std::make_shared<UpOptions>();
  AddCommon(*command, options->common);
  command->add_option("--shards", options->shards, "shards to run")
      ->check(CLI::Range(size_t{1}, limits::kShardsMax))
      ->capture_default_str();
  command->add_option("--dram", options->dram, "host memory of each shard")->capture_default_str();
  command->add_option("--hbm", options->hbm, "GPU memory of each shard; default: none");
  command->add_option("--gpu", options->gpu, "GPU that --hbm is on");
  CLI::Option* const nvme_dir =
      command->add_option("--nvme-dir", options->nvme_dir, "folder of the disk that --nvme is on");
  CLI::Option* const nvme =
      command
          ->add_option("--nvme", options->nvme,
                       "room on a local disk per shard for the coldest blocks, e.g. 10GiB")
          ->needs(nvme_dir);
  command
      ->add_option("--nvme-cipher", options->nvme_cipher,
                   "what the shards write there: aes-256 (ciphertext, its key ends with the shard "
                   "or is --nvme-key's) or none (for a volume that is encrypted already)")
      ->check(CLI::IsMember({"aes-256", "none"}))
      ->capture_default_str();
  command
      ->add_flag("--nvme-keep", options->nvme_keep,
                 "keep what the shards have, in memory too, for the next `up` with this folder")
      ->needs(nvme);
  command
      ->add_option("--nvme-key", options->nvme_key,
                   "file with the secret that --nvme-keep encrypts under, e.g. of head -c 32 "
                   "/dev/urandom")
      ->needs(nvme);
  command->add_option("--replication", options->replication, "copies of every block")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--tenant-quota", options->tenant_quotas,
                      "NAME=SIZE: memory that a tenant's blocks may have on each shard; again for "
                      "more tenants");
  command->add_option("--tenant-quota-default", options->tenant_quota_default,
                      "the same for each tenant that is not named; default: none");
  command
      ->add_option("--eviction", options->eviction,
                   "what the shards drop for new blocks: learned or lru")
      ->check(CLI::IsMember({"learned", "lru"}))
      ->capture_default_str();
  command->add_option("--router-port", options->router_port, "0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command
      ->add_option("--port-base", options->port_base,
                   "shard i listens on this port + i; 0: any free ones")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  AddTlsFiles(*command, options->tls);
  command->add_flag("--status", options->status,
                    "give each a status port with /metrics, and print where it is");
  command->add_option("--folder", options->folder,
                      "keep members file and logs here; default: a private one, removed");
  return {command, [options] { return Up(*options).Run(); }};
}

}  // namespace reprise::cli
