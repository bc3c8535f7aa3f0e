// `reprise doctor`: what works here, what does not, and the one thing to do next.
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/child_process.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/tcp_check.h"
#include "client/cli/terminal.h"
#include "client/cpp/client.h"
#include "client/cpp/prefix_hasher.h"
#include "cluster/link/nccl_context.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/memory.h"
#include "nlohmann/json.hpp"
#include "proto/types/status_macros.h"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;

struct DoctorOptions {
  Common common;
  Where where;
  std::string dram = "256MiB";
  uint32_t shards = 3;
};

// Of device memory that is had for a moment: the least that a driver hands out.
constexpr uint64_t kProbeBytes = 2ull << 20;

enum class Verdict { kGood, kAbsent, kBad };  // absent: works without, with less

struct Finding {
  std::string name;
  Verdict verdict = Verdict::kGood;
  std::string found;
  std::string next;  // what to do; empty: nothing
};

const char* VerdictName(Verdict verdict) {
  return verdict == Verdict::kGood ? "ok" : verdict == Verdict::kAbsent ? "absent" : "bad";
}

Finding CheckExecutable(const std::string& name) {
  const auto path = FindExecutable(name);
  if (path.ok()) return {name, Verdict::kGood, *path, ""};
  return {name, Verdict::kBad, "not found", std::string(path.status().message())};
}

Finding CheckLoopback() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool good = listener >= 0 &&
                    bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                    listen(listener, 1) == 0;
  const std::string why = std::strerror(errno);
  if (listener >= 0) close(listener);
  if (good) return {"ports on 127.0.0.1", Verdict::kGood, "can listen", ""};
  return {"ports on 127.0.0.1", Verdict::kBad, why,
          "bring the loopback interface up: ip link set lo up"};
}

Finding CheckUnixSockets() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return {"Unix sockets", Verdict::kAbsent, std::strerror(errno),
            "without them workers use the stream lane"};
  }
  close(ends[0]);
  close(ends[1]);
  const int memory = memfd_create("reprise-doctor", MFD_CLOEXEC);
  if (memory < 0) {
    return {"Unix sockets", Verdict::kAbsent, "no memfd",
            "without shared memory workers use the stream lane"};
  }
  close(memory);
  return {"Unix sockets", Verdict::kGood, "with shared memory: the view lane works", ""};
}

Finding CheckMemory(const DoctorOptions& options, uint64_t wanted) {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string name, unit; meminfo >> name;) {
    uint64_t kib = 0;
    meminfo >> kib;
    std::getline(meminfo, unit);
    if (name == "MemAvailable:") available = kib << 10;
  }
  const std::string found = absl::StrCat(HumanBytes(available), " available, ", options.shards,
                                         " shards of ", options.dram, " want ", HumanBytes(wanted));
  if (available >= wanted) return {"memory", Verdict::kGood, found, ""};
  return {"memory", Verdict::kBad, found, "run fewer shards, or give each less with --dram"};
}

// Shards ask for huge pages, and of shared memory the kernel gives none by default.
Finding CheckHugePages() {
  constexpr char kPath[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  std::string text;
  std::getline(std::ifstream(kPath), text);
  const size_t begin = text.find('[');
  const std::string set =
      begin == std::string::npos ? "" : text.substr(begin + 1, text.find(']') - begin - 1);
  if (set == "advise" || set == "always" || set == "within_size" || set == "force") {
    return {"huge pages", Verdict::kGood, absl::StrCat("for shared memory: ", set), ""};
  }
  if (set.empty()) return {"huge pages", Verdict::kAbsent, "not of this kernel", ""};
  return {
      "huge pages", Verdict::kAbsent, absl::StrCat("for shared memory: ", set),
      absl::StrCat("a worker's first touch of a shard's memory is a page fault for every 4 KiB: "
                   "echo advise > ",
                   kPath)};
}

Finding CheckMemlock() {
  rlimit limit = {};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const std::string found =
      limit.rlim_cur == RLIM_INFINITY ? "unlimited" : HumanBytes(limit.rlim_cur);
  if (limit.rlim_cur == RLIM_INFINITY) return {"memlock", Verdict::kGood, found, ""};
  return {"memlock", Verdict::kAbsent, found,
          "only matters with a GPU, whose pinned pools need it: ulimit -l unlimited"};
}

// Every GPU by name, and what is free on it.
Finding CheckGpus() {
  std::vector<std::string> gpus;
  for (int device = 0; device < kernels::DeviceCount(); ++device) {
    const absl::StatusOr<kernels::DeviceInfo> info = kernels::DescribeDevice(device);
    gpus.push_back(info.ok()
                       ? absl::StrCat(device, ": ", info->name, ", ", HumanBytes(info->free_bytes),
                                      " of ", HumanBytes(info->memory_bytes), " free")
                       : absl::StrCat(device, ": ", info.status().message()));
  }
  if (!gpus.empty()) return {"GPUs", Verdict::kGood, absl::StrJoin(gpus, "; "), ""};
  return {"GPUs", Verdict::kAbsent, kernels::WhyNoDevice(), "blocks are kept in host memory"};
}

// Whether other processes of this machine can map memory of each GPU.
Finding CheckIpc(int gpus) {
  std::vector<std::string> found;
  bool all = true;
  for (int device = 0; device < gpus; ++device) {
    const auto memory = kernels::DeviceBuffer::Create(device, kProbeBytes);
    const absl::Status shared = memory.ok() ? memory->Export().status() : memory.status();
    all = all && shared.ok();
    found.push_back(
        absl::StrCat(device, ": ", shared.ok() ? "works" : std::string(shared.message())));
  }
  if (all) return {"CUDA IPC", Verdict::kGood, absl::StrJoin(found, "; "), ""};
  return {"CUDA IPC", Verdict::kAbsent, absl::StrJoin(found, "; "),
          "without it blocks in GPU memory move by NCCL or the stream lane; in a container, share "
          "the host's IPC namespace"};
}

// Which GPUs reach each other's memory.
Finding CheckPeerAccess(int gpus) {
  std::vector<std::string> with, without;
  for (int a = 0; a < gpus; ++a) {
    for (int b = a + 1; b < gpus; ++b) {
      const bool both = kernels::PeerAccessPossible(a, b).value_or(false) &&
                        kernels::PeerAccessPossible(b, a).value_or(false);
      (both ? with : without).push_back(absl::StrCat(a, "-", b));
    }
  }
  std::vector<std::string> found;
  if (!with.empty()) found.push_back(absl::StrCat("between ", absl::StrJoin(with, ", ")));
  if (!without.empty())
    found.push_back(absl::StrCat("none between ", absl::StrJoin(without, ", ")));
  return {"peer access", without.empty() ? Verdict::kGood : Verdict::kAbsent,
          absl::StrJoin(found, "; "),
          without.empty() ? "" : "between those blocks move by NCCL or through host memory"};
}

Finding CheckNccl() {
  const absl::StatusOr<std::string> version = cluster::NcclContext::LibraryVersion();
  if (version.ok()) return {"NCCL", Verdict::kGood, absl::StrCat("version ", *version), ""};
  return {"NCCL", Verdict::kAbsent, std::string(version.status().message()),
          "without it blocks move by the view, tcp and stream lanes"};
}

Finding CheckClock() {
  const absl::Time a = MonotonicClock().Now();
  const absl::Time b = MonotonicClock().Now();
  const bool good =
      b >= a && absl::Now() > absl::FromCivil(absl::CivilDay(2024, 1, 1), absl::UTCTimeZone());
  if (good)
    return {"clock", Verdict::kGood, absl::FormatTime(absl::Now(), absl::UTCTimeZone()), ""};
  return {"clock", Verdict::kBad, absl::FormatTime(absl::Now(), absl::UTCTimeZone()),
          "set this machine's clock"};
}

// Stores a block and reads it back, as a worker would.
absl::StatusOr<std::string> RoundTrip(const Where& where) {
  using client::Client;
  REPRISE_ASSIGN_OR_RETURN(auto one, Client::Create({.routers = where.routers,
                                                     .shards = where.shards,
                                                     .name = "reprise doctor",
                                                     .timeout = absl::Seconds(where.timeout_s),
                                                     .tls = where.tls}));
  CacheSpec spec;
  spec.model = "reprise-doctor";
  spec.attention = AttentionKind::kGqa;
  spec.dtype = DataType::kF16;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.head_dim = 64;
  spec.block_tokens = 16;
  REPRISE_ASSIGN_OR_RETURN(const auto opened, one->OpenSpec(spec));
  // Never the same tokens twice: what an earlier doctor stored must not stand in for this one's
  // store.
  const auto now = static_cast<uint64_t>(absl::ToUnixNanos(absl::Now()));
  std::vector<uint32_t> tokens(spec.block_tokens, static_cast<uint32_t>(getpid()));
  tokens[0] = static_cast<uint32_t>(now);
  tokens[1] = static_cast<uint32_t>(now >> 32);
  const auto keys = client::PrefixKeys(tokens, spec.block_tokens);
  std::vector<uint8_t> block(opened->layout.block_bytes), back(block.size());
  for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<uint8_t>(i * 131 + now);
  const absl::Time started = absl::Now();
  REPRISE_ASSIGN_OR_RETURN(
      const auto stored,
      one->Store({.spec = opened,
                  .keys = keys,
                  .first = 0,
                  .tokens = tokens,
                  .session = "reprise-doctor",
                  .memory = {.buffers = {block.data()}, .plan = nullptr, .pages = {}},
                  .timeout = {}}));
  REPRISE_RETURN_IF_ERROR(stored.status);
  REPRISE_ASSIGN_OR_RETURN(const auto acquired, one->Acquire({.spec = opened,
                                                              .keys = keys,
                                                              .session = "reprise-doctor",
                                                              .first_block = 0,
                                                              .timeout = {}}));
  REPRISE_RETURN_IF_ERROR(acquired.status);
  if (acquired.run->blocks() != 1)
    return absl::InternalError("a block that was just stored was not found");
  REPRISE_ASSIGN_OR_RETURN(
      const auto fetched,
      one->Fetch(acquired.run, {.first = 0,
                                .count = 1,
                                .memory = {.buffers = {back.data()}, .plan = nullptr, .pages = {}},
                                .timeout = {}}));
  REPRISE_RETURN_IF_ERROR(fetched.status);
  if (back != block)
    return absl::DataLossError("the block that came back is not the one that was stored");
  std::string lane = "unknown";
  for (size_t kind = 0; kind < kLaneKinds; ++kind) {
    if (fetched.by_lane[kind] > 0) lane = LaneKindName(static_cast<LaneKind>(kind));
  }
  return absl::StrCat(
      "stored and read back ", HumanBytes(block.size()), " in ",
      absl::FormatDuration(absl::Trunc(absl::Now() - started, absl::Microseconds(1))), " by the ",
      lane, " lane");
}

Finding CheckRoundTrip(const Where& where) {
  if (where.routers.empty() && where.shards.empty()) {
    return {"round trip", Verdict::kAbsent, "no cluster named",
            "start one with `reprise up`, then `reprise doctor --router HOST:PORT`"};
  }
  const auto trip = RoundTrip(where);
  if (trip.ok()) return {"round trip", Verdict::kGood, *trip, ""};
  const std::string why(trip.status().message());
  return {"round trip", Verdict::kBad, why,
          "look at the shards with `reprise describe`, and at their logs"};
}

Finding CheckTcp(const Where& where) {
  const auto shards = ReachTcp(where);
  if (!shards.ok() || shards->empty()) {
    return {"tcp lane", Verdict::kAbsent, "no shard answered", ""};
  }
  std::vector<std::string> without;
  for (const TcpReach& shard : *shards) {
    if (!shard.status.ok()) {
      without.push_back(absl::StrCat(shard.shard_id, ": ", shard.status.message()));
    }
  }
  if (without.empty()) {
    return {"tcp lane", Verdict::kGood,
            absl::StrCat("reached at ", shards->size(), " of ", shards->size()), ""};
  }
  return {"tcp lane", Verdict::kAbsent, absl::StrJoin(without, "; "),
          "blocks from other machines go over gRPC, more slowly: let workers and shards at the "
          "shards' --tcp-port"};
}

ExitCode Doctor(const DoctorOptions& options) {
  const auto dram_bytes = ParseBytes(options.dram, "--dram");
  if (!dram_bytes.ok()) return Complain(dram_bytes.status());
  std::vector<Finding> findings = {
      CheckExecutable("reprise-shard"),
      CheckExecutable("reprise-router"),
      CheckLoopback(),
      CheckUnixSockets(),
      CheckMemory(options, *dram_bytes * options.shards),
      CheckHugePages(),
      CheckMemlock(),
      CheckGpus(),
  };
  const int gpus = kernels::DeviceCount();
  if (gpus > 0) findings.push_back(CheckIpc(gpus));
  if (gpus > 1) findings.push_back(CheckPeerAccess(gpus));
  findings.push_back(CheckNccl());
  findings.push_back(CheckClock());
  if (!options.where.routers.empty() || !options.where.shards.empty()) {
    Waiting waiting("the shards' ports");
    findings.push_back(CheckTcp(options.where));
  }
  {
    Waiting waiting("a block to and fro");
    findings.push_back(CheckRoundTrip(options.where));
  }
  const Finding* next = nullptr;  // the worst finding that can be cured, the first of its kind
  for (const Finding& finding : findings) {
    if (finding.verdict != Verdict::kBad) continue;
    next = &finding;
    break;
  }
  const bool good = next == nullptr;
  if (next == nullptr && findings.back().verdict == Verdict::kAbsent) next = &findings.back();
  const std::string step = next != nullptr ? next->next : "nothing: all that is needed is here";
  if (options.common.json()) {
    Json json = {{"ok", good}, {"next", step}, {"findings", Json::array()}};
    for (const Finding& f : findings) {
      json["findings"].push_back({{"name", f.name},
                                  {"verdict", VerdictName(f.verdict)},
                                  {"found", f.found},
                                  {"next", f.next}});
    }
    PrintJson(json);
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const Finding& f : findings) rows.push_back({f.name, VerdictName(f.verdict), f.found});
    std::printf("%s\nNext: %s\n", Table({"WHAT", "", "FOUND"}, rows).c_str(), step.c_str());
  }
  return good ? ExitCode::kOk : ExitCode::kFailed;
}

}  // namespace

Registered AddDoctor(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("doctor", "what works on this machine, and what to do next");
  auto options = std::make_shared<DoctorOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option("--dram", options->dram, "host memory that each shard is to have")
      ->capture_default_str();
  command->add_option("--shards", options->shards, "shards that are to run here")
      ->capture_default_str();
  return {command, [options] { return Doctor(*options); }};
}

}  // namespace reprise::cli
