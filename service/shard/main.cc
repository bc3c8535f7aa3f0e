// reprise-shard: one cache shard.

#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cluster/membership/members_file.h"
#include "kernels/runtime/device.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/serving.h"
#include "service/pool/hbm_device.h"
#include "service/process/membership_flags.h"
#include "service/process/server_process.h"
#include "service/process/tls_flags.h"
#include "service/shard/disk_flags.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_lanes.h"
#include "service/shard/shard_peers.h"
#include "service/shard/shard_service_server.h"
#include "service/telemetry/status_port.h"

namespace reprise::shard {
namespace {

using process::Log;

struct Flags {
  std::string id = "shard-0";
  std::string listen = "127.0.0.1:0";
  uint64_t dram_bytes = 256ull << 20;
  uint64_t hbm_bytes = 0;
  int gpu = 0;
  DiskFlags disk;
  uint32_t replication = 2;
  std::vector<std::string> tenant_quotas;
  uint64_t tenant_quota_default = TenantQuotas::kNone;
  std::string eviction = "learned";
  double claimed_share = limits::kClaimedShare;
  process::MembershipFlags members;
  std::string advertise;
  double weight = 1.0;
  std::string output = "text";
  bool insecure = false;
  bool no_view = false;
  bool no_tcp = false;
  uint16_t tcp_port = 0;
  NcclUse nccl = NcclUse::kAuto;
  std::string nccl_library;
  std::optional<double> grace_seconds;
  process::TlsFlags tls;
  telemetry::StatusPortOptions status;
};

constexpr char kFooter[] =
    "Every other limit is fixed and shown by `reprise describe --limits` (ShardService.Describe).\n"
    "SIGTERM: tell clients to write elsewhere, hand what is stored to other shards within "
    "--grace,\n"
    "the hottest first, finish what is in flight, exit 0. SIGINT: the same, and hand over "
    "nothing.\n"
    "With --nvme-keep either one saves what is in memory to the disk and hands over nothing.\n"
    "NCCL reads its own environment: NCCL_SOCKET_IFNAME names its network interface. Its traffic\n"
    "is plaintext, also with TLS.";

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--id", flags.id, "Stable name of this shard, the same after a restart")
      ->capture_default_str()
      ->check([](const std::string& id) {
        return id.empty() || id.size() > limits::kNameBytesMax
                   ? "has " + std::to_string(id.size()) + " bytes: use 1 to " +
                         std::to_string(limits::kNameBytesMax)
                   : std::string();
      });
  app.add_option("--listen", flags.listen, "host:port to serve on; port 0: a free one")
      ->capture_default_str();
  const std::string least =
      "; at least kExtentBytesMin = " + std::to_string(limits::kExtentBytesMin) + " bytes";
  app.add_option(
         "--dram", flags.dram_bytes,
         "Host memory for blocks, e.g. 256MiB; taken at start; 0, beside --hbm: none" + least)
      ->transform(CLI::AsSizeValue(false))
      ->default_str("256MiB");
  app.add_option(
         "--hbm", flags.hbm_bytes,
         "GPU memory for blocks, e.g. 8GiB, filled before --dram; taken at start; 0: none" + least)
      ->transform(CLI::AsSizeValue(false))
      ->default_str("0");
  app.add_option("--gpu", flags.gpu, "GPU that --hbm is on")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  flags.disk.AddTo(app);
  app.add_option("--replication", flags.replication,
                 "Copies that the cluster keeps of a block, this shard's included")
      ->check(CLI::Range(uint32_t{1}, limits::kReplicationMax))
      ->capture_default_str();
  app.add_option("--tenant-quota", flags.tenant_quotas,
                 "NAME=SIZE: memory, over all tiers, that a tenant's blocks may have here, e.g. "
                 "spiffe://acme/team=4GiB; at its quota its own coldest blocks make room; again "
                 "for more tenants");
  app.add_option("--tenant-quota-default", flags.tenant_quota_default,
                 "The same for each tenant that is not named; 0: none")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("0");
  app.add_option("--eviction", flags.eviction,
                 "What is dropped for new blocks: learned (what is least likely to come back soon, "
                 "by what did so far), or lru (what was used longest ago)")
      ->check(CLI::IsMember({"learned", "lru"}))
      ->capture_default_str();
  app.add_option("--claims", flags.claimed_share,
                 "Share of memory, and of each tenant's quota, that callers' claims (retain and "
                 "pin) may keep; pins half of that; 0: none")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  flags.members.AddTo(app,
                      "; without it, a name or etcd this shard is alone: nothing is copied to "
                      "others, pulled from them or handed over");
  app.add_option("--advertise", flags.advertise,
                 "HOST:PORT at which others reach this shard, for --etcd; default: as it listens");
  app.add_option("--weight", flags.weight, "Share of the keys against the others', for --etcd")
      ->check(CLI::Range(0.001, limits::kShardWeightMax))
      ->capture_default_str();
  app.add_option("--grace", flags.grace_seconds,
                 absl::StrCat("Seconds for handing over or saving, and for what is in flight, when "
                              "stopped; default: ",
                              absl::ToInt64Seconds(limits::kStopGrace), ", with --nvme-keep ",
                              absl::ToInt64Seconds(limits::kSaveGrace)))
      ->check(CLI::Range(0.0, 3600.0));
  flags.tls.AddTo(app);
  app.add_flag("--insecure", flags.insecure, "Serve plaintext on an address that is not loopback");
  process::AddStatusFlags(app, flags.status.listen, flags.status.public_address);
  app.add_flag("--no-view", flags.no_view, "Offer no shared memory to clients on this machine");
  app.add_flag("--no-tcp", flags.no_tcp,
               "Offer no port beside gRPC's: blocks of other machines go over gRPC itself");
  app.add_option("--tcp-port", flags.tcp_port,
                 "That port, at --listen's host, encrypted where gRPC is; 0: a free one")
      ->capture_default_str();
  app.add_option(
         "--nccl", flags.nccl,
         "NCCL between GPUs: auto (with a GPU tier and the library), on (or do not start), off")
      ->transform(CLI::CheckedTransformer(std::map<std::string, NcclUse>{
          {"auto", NcclUse::kAuto}, {"on", NcclUse::kOn}, {"off", NcclUse::kOff}}))
      ->default_str("auto");
  app.add_option("--nccl-library", flags.nccl_library,
                 "Path of libnccl.so.2; without it $REPRISE_NCCL_LIBRARY, then the loader's");
  app.add_option("-o,--output", flags.output, "What to print when serving")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.set_version_flag("--version", REPRISE_VERSION);
  app.footer(kFooter);
}

// Megabyte buffers come and go with every chunk: without this the allocator maps and faults in
// fresh pages each time, which costs more than copying the bytes.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, limits::kMallocMmapThresholdBytes);
  mallopt(M_TRIM_THRESHOLD, limits::kMallocTrimThresholdBytes);
  mallopt(M_TOP_PAD, limits::kMallocTopPadBytes);
}

// `status`: nullptr when there is no status port.
void PrintServing(const Flags& flags, const std::string& address, const ShardLanes& lanes,
                  const telemetry::HttpServer* status) {
  if (flags.output == "json") {
    nlohmann::json line = {
        {"shard_id", flags.id}, {"address", address}, {"pid", static_cast<int64_t>(getpid())}};
    if (lanes.tcp_port() != 0) line["tcp_port"] = lanes.tcp_port();
    if (status != nullptr) line["status_address"] = status->address();
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("shard %s serves %s%s (pid %d)\n", flags.id.c_str(), address.c_str(),
                status == nullptr ? "" : absl::StrCat(", status ", status->address()).c_str(),
                getpid());
  }
  std::fflush(stdout);
}

// nullptr where nothing says who the others are: this shard is alone.
absl::StatusOr<std::unique_ptr<ShardPeers>> OpenPeers(const Flags& flags, ShardEngine& engine,
                                                      const ShardLanes& lanes,
                                                      const process::Security& security) {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<cluster::Membership> membership,
                           flags.members.Open(Log));
  if (membership == nullptr) return nullptr;
  return std::make_unique<ShardPeers>(
      std::move(membership),
      ShardPeersOptions{.peers = {.self = ShardId{flags.id},
                                  .lanes = {LaneKind::kNccl, LaneKind::kTcp, LaneKind::kStream},
                                  .nccl = lanes.nccl(),
                                  .credentials = security.credentials,
                                  .log = Log},
                        .replication = flags.replication,
                        .gpu = flags.gpu},
      engine);
}

// Others go by what a shard that registers itself says, and what it listens on may be no address
// that they can dial.
absl::Status CheckAdvertise(const Flags& flags) {
  if (!flags.members.registers()) return absl::OkStatus();
  const std::string address = flags.advertise.empty() ? "localhost:1" : flags.advertise;
  const absl::Status valid = cluster::ValidateMember({.id = ShardId{flags.id}, .address = address});
  if (!valid.ok()) {
    return Refusal(
        valid.code(), "ADVERTISE",
        absl::StrCat("--id and --advertise, as --etcd tells them to others: ", valid.message()));
  }
  if (!flags.advertise.empty()) return absl::OkStatus();
  const std::string host = flags.listen.substr(0, flags.listen.rfind(':'));
  if (host != "0.0.0.0" && host != "[::]" && host != "::") return absl::OkStatus();
  return Refusal(absl::StatusCode::kInvalidArgument, "ADVERTISE",
                 absl::StrCat("--etcd tells others where this shard is, and nobody can dial ",
                              flags.listen, ": give --advertise HOST:PORT"));
}

// What is stored goes to other shards, and so does what was being written when that began.
void HandOver(ShardPeers& peers, absl::Time end) {
  // Leaves time for what is in flight.
  peers.drain().Start(end - limits::kStopFlush);
  peers.drain().Await(end);
  Log(peers.drain().progress().Sentence());
  if (!peers.AwaitCopies(end - absl::Now())) {
    Log("the grace period ended before every block had its copy");
  }
}

// nullptr without --hbm, and then no GPU is looked for.
absl::StatusOr<std::unique_ptr<HbmDevice>> OpenGpu(const Flags& flags) {
  if (flags.hbm_bytes == 0) return nullptr;
  absl::StatusOr<std::unique_ptr<HbmDevice>> device = OpenHbmDevice(flags.gpu);
  if (device.ok()) return device;
  const std::string why = kernels::WhyNoDevice();
  return Refusal(device.status().code(), "GPU_ABSENT",
                 absl::StrCat("--hbm wants GPU ", flags.gpu, ", which cannot be used (",
                              why.empty() ? std::string(device.status().message()) : why,
                              "): leave --hbm out to serve from --dram, or name another --gpu"));
}

// A tier that holds no block would take none, and say so to every client.
absl::Status CheckTier(absl::string_view flag, uint64_t bytes) {
  if (bytes == 0 || bytes >= limits::kExtentBytesMin) return absl::OkStatus();
  return Refusal(absl::StatusCode::kInvalidArgument, "TIER_SIZE",
                 absl::StrCat(flag, " = ", bytes, " bytes is less than kExtentBytesMin = ",
                              limits::kExtentBytesMin, ": give it more"));
}

absl::Status CheckTiers(const Flags& flags) {
  REPRISE_RETURN_IF_ERROR(CheckTier("--dram", flags.dram_bytes));
  REPRISE_RETURN_IF_ERROR(CheckTier("--hbm", flags.hbm_bytes));
  return CheckTier("--nvme", flags.disk.bytes);
}

// Whether the next process will find what this one has.
bool Keeps(const ShardEngine& engine) {
  const EngineDescription now = engine.Describe(std::nullopt);
  return now.kept_disk.has_value() && now.kept_disk->why_not_kept.empty() && !now.tiers.back().lost;
}

absl::Duration GraceOf(const Flags& flags) {
  if (flags.grace_seconds.has_value()) return absl::Seconds(*flags.grace_seconds);
  return flags.disk.keep ? limits::kSaveGrace : limits::kStopGrace;
}

// What was leased until now is saved too, and the disk left to the next process.
void EndDisk(ShardEngine& engine, uint64_t no_room, absl::Time end) {
  SaveResult saved;
  if (Keeps(engine)) saved = engine.Save(end);
  if (!engine.Close().ok()) return;  // it said why
  const uint64_t lost = no_room + saved.in_memory + saved.dropped;
  Log(lost == 0 ? "disk: all that was stored is there for the next process"
                : absl::StrCat("disk: ", lost, " blocks of memory had no time, or no room there"));
}

absl::Status Run(const Flags& flags, const process::StopSignals& stop_signals) {
  REPRISE_ASSIGN_OR_RETURN(const process::Security security, flags.tls.Open());
  REPRISE_RETURN_IF_ERROR(
      wire::CheckListenAddress(flags.listen, flags.insecure, security.credentials));
  REPRISE_RETURN_IF_ERROR(telemetry::CheckStatusPort(flags.status));
  REPRISE_RETURN_IF_ERROR(CheckAdvertise(flags));
  REPRISE_RETURN_IF_ERROR(CheckTiers(flags));
  REPRISE_ASSIGN_OR_RETURN(TenantQuotas quotas,
                           ParseTenantQuotas(flags.tenant_quotas, flags.tenant_quota_default));
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<HbmDevice> gpu, OpenGpu(flags));
  ShardEngineOptions engine_options{
      .id = ShardId{flags.id},
      .dram_bytes = flags.dram_bytes,
      .hbm_bytes = flags.hbm_bytes,
      .hbm_device = std::move(gpu),
      .replication = flags.replication,
      .quotas = std::move(quotas),
      .eviction = flags.eviction == "lru" ? Eviction::kLru : Eviction::kLearned,
      .claimed_share = flags.claimed_share,
      .log = Log};
  REPRISE_RETURN_IF_ERROR(flags.disk.AddTo(engine_options));
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<ShardEngine> engine,
                           ShardEngine::Create(std::move(engine_options)));
  REPRISE_ASSIGN_OR_RETURN(
      const std::unique_ptr<ShardLanes> lanes,
      ShardLanes::Open({.view = !flags.no_view,
                        .nccl = flags.nccl,
                        .nccl_library = flags.nccl_library,
                        .gpu = flags.hbm_bytes > 0 ? std::optional<int>(flags.gpu) : std::nullopt,
                        .tcp = !flags.no_tcp,
                        .listen = flags.listen,
                        .tcp_port = flags.tcp_port,
                        .tcp_encrypted = security.credentials != nullptr},
                       *engine));
  Log(lanes->Summary());
  if (flags.disk.bytes > 0) Log(flags.disk.Summary());
  if (flags.disk.keep) Log(RestoredSummary(*engine->Describe(std::nullopt).kept_disk));
  Log(security.summary);
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<ShardPeers> peers,
                           OpenPeers(flags, *engine, *lanes, security));

  ShardServerOptions options{.id = ShardId{flags.id},
                             .listen = flags.listen,
                             .insecure = flags.insecure,
                             .credentials = security.credentials,
                             .access = security.access,
                             .replication = flags.replication,
                             .time_calls = !flags.status.listen.empty(),
                             .peers = peers.get()};
  lanes->AddTo(options);
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<ShardServer> server,
                           ShardServer::Start(std::move(options), *engine));
  // Ends before the server does, and answers while it drains.
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<telemetry::HttpServer> status,
                           telemetry::OpenStatusPort(flags.status, server->status()));
  if (peers != nullptr) {
    peers->membership().Join(
        {.id = ShardId{flags.id},
         .address = flags.advertise.empty() ? server->address() : flags.advertise,
         .weight = flags.weight});
  }
  PrintServing(flags, server->address(), *lanes, status.get());

  const int signal = stop_signals.Await();
  const absl::Time end = absl::Now() + GraceOf(flags);
  server->StartDraining();
  uint64_t no_room = 0;
  if (Keeps(*engine)) {
    no_room = engine->Save(end - limits::kStopFlush).dropped;
  } else if (peers != nullptr && signal == SIGTERM) {
    HandOver(*peers, end);
  }
  if (peers != nullptr) {
    peers->membership().Leave(std::max(limits::kStopFlush, end - absl::Now()));
  }
  server->Stop(std::max(absl::ZeroDuration(), end - absl::Now()));
  if (flags.disk.keep) EndDisk(*engine, no_room, std::max(end, absl::Now() + limits::kStopFlush));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const process::StopSignals stop_signals;
  KeepFreedMemory();
  Flags flags;
  CLI::App app{"A Reprise cache shard: keeps K/V blocks, keyed by prompt-prefix hash."};
  AddFlags(app, flags);
  if (const std::optional<int> code = process::Parse(app, argc, argv)) return *code;
  process::TakeDescriptors();
  process::OpenLog(flags.id);
  const absl::Status status = Run(flags, stop_signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reprise-shard: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace reprise::shard

int main(int argc, char** argv) {
  return reprise::shard::Main(argc, argv);
}
