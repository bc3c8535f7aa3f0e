// The NCCL lane on a real GPU: two processes that NCCL takes for two machines (each its own
// NCCL_HOSTID, sockets over loopback), on one GPU. Blocks of real models go both ways and are
// compared; the process that serves them is killed and stopped in the middle of a transfer; and the
// lane is timed beside ncclSend and ncclRecv alone, between the same two processes.
//   reprise-gpu-nccl [--skip-exit=N] [--nccl-library=PATH] [--blocks-max=N] [--patient]
// Without a GPU or without libnccl it says SKIPPED and why. Every line says what it saw, so that a
// failure explains itself.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "kernels/runtime/device.h"
#include "proto/wire/channel.h"
#include "tests/gpu/gpu_nccl_peer.h"
#include "tests/gpu/must.h"
#include "tests/support/process.h"

namespace reprise::gpu_nccl {
namespace {

constexpr int kRounds = 9;
constexpr absl::Duration kUpMax = absl::Seconds(30);   // to connect and warm on one GPU
constexpr absl::Duration kReadMax = absl::Seconds(4);  // deadline of a read that is disturbed

struct Options {
  std::string nccl_library;
  Amount amount;
  absl::Duration abort_max = absl::Seconds(2);  // the promise
  absl::Duration late_max = absl::Seconds(1);   // after a deadline, on a busy machine
};

int failures = 0;

void Check(bool holds, const std::string& claim, const std::string& seen = "") {
  if (!holds) ++failures;
  std::printf("%s: %s%s%s\n", holds ? "ok" : "FAILED", claim.c_str(), seen.empty() ? "" : ": ",
              seen.c_str());
  std::fflush(stdout);
}

// NCCL is to take the two processes for two machines. What the caller's environment says wins.
void SetNcclEnvironment(const char* host) {
  const std::pair<const char*, const char*> settings[] = {
      {"CUDA_VISIBLE_DEVICES", "0"}, {"NCCL_NET", "Socket"},     {"NCCL_IB_DISABLE", "1"},
      {"NCCL_SOCKET_IFNAME", "lo"},  {"NCCL_MNNVL_ENABLE", "0"}, {"NCCL_NVLS_ENABLE", "0"},
      {"NCCL_MAX_CTAS", "2"},        {"NCCL_RAS_ENABLE", "0"},   {"NCCL_DEBUG", "WARN"}};
  for (const auto& [name, value] : settings) ::setenv(name, value, /*replace=*/0);
  ::setenv("NCCL_HOSTID", host, 1);
}

// The other process, with the pipe that tells it what to do.
class Peer {
 public:
  Peer(std::string self, const Options& options)
      : self_(std::move(self)), blocks_max_(options.amount.blocks_max) {
    if (!options.nccl_library.empty()) {
      library_ = absl::StrCat("--nccl-library=", options.nccl_library);
    }
    std::string folder = std::filesystem::temp_directory_path() / "reprise-gpu-nccl.XXXXXX";
    REPRISE_CHECK(::mkdtemp(folder.data()) != nullptr);
    folder_ = folder;
    commands_ = folder + "/commands";
    REPRISE_CHECK(::mkfifo(commands_.c_str(), 0600) == 0);
    writes_ = ::open(commands_.c_str(), O_RDWR | O_CLOEXEC);
    REPRISE_CHECK(writes_ >= 0);
  }
  ~Peer() {
    process_.reset();
    ::close(writes_);
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  // At the address it had before, if it had one.
  bool Start() {
    const std::string listen = address_.empty() ? "127.0.0.1:0" : address_;
    std::vector<std::string> arguments = {self_, "--peer", absl::StrCat("--listen=", listen),
                                          absl::StrCat("--commands=", commands_),
                                          absl::StrCat("--blocks-max=", blocks_max_)};
    if (!library_.empty()) arguments.push_back(library_);
    process_ = std::make_unique<testing::Process>(arguments);
    const auto line = process_->ReadLine(absl::Seconds(60));
    Check(line.has_value() && absl::StartsWith(*line, "serves "), "the other process serves",
          line.value_or("it printed nothing in 60 s; its own words are above"));
    if (!line.has_value() || !absl::StartsWith(*line, "serves ")) return false;
    address_ = std::string(absl::StripPrefix(*line, "serves "));
    return true;
  }
  void Tell(const std::string& command) {
    const std::string line = command + "\n";
    REPRISE_CHECK(::write(writes_, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  }
  std::string Answer() {
    return process_->ReadLine(absl::Seconds(60)).value_or("no answer in 60 s");
  }
  testing::Process& process() { return *process_; }
  const std::string& address() const { return address_; }

 private:
  const std::string self_;
  const uint32_t blocks_max_;
  std::string library_, folder_, commands_, address_;
  int writes_ = -1;
  std::unique_ptr<testing::Process> process_;
};

// Copies what arrives, when it is to be looked at.
class DeviceSink final : public lanes::BlockSink {
 public:
  DeviceSink(uint32_t shape, bool compare) : shape_(shape), compare_(compare) {}
  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  std::span<uint8_t> Buffer(uint32_t) override { return {}; }
  absl::Status Complete(uint32_t) override { return absl::InternalError("host bytes came"); }
  absl::Status Deliver(uint32_t, std::span<const uint8_t>) override {
    return absl::InternalError("host bytes came");
  }
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    for (uint32_t i = 0; compare_ && i < blocks.size(); ++i) {
      const absl::StatusOr<std::vector<uint8_t>> bytes = FromDevice(blocks[i]);
      if (!bytes.ok()) return bytes.status();
      if (*bytes != ContentOf(shape_, first + i)) {
        return absl::DataLossError(absl::StrCat("block ", first + i, " has wrong bytes"));
      }
    }
    absl::MutexLock lock(&mu_);
    delivered_ += static_cast<uint32_t>(blocks.size());
    return absl::OkStatus();
  }
  uint32_t delivered() const {
    absl::MutexLock lock(&mu_);
    return delivered_;
  }

 private:
  const uint32_t shape_;
  const bool compare_;
  mutable absl::Mutex mu_;
  uint32_t delivered_ = 0;
};

// Blocks in device memory, either pinned where they lie or copied by FillDevice.
class DeviceSource final : public lanes::BlockSource {
 public:
  DeviceSource(const DeviceBlocks& blocks, uint32_t count, bool pinned)
      : blocks_(blocks), count_(count), pinned_(pinned) {}
  lanes::MemoryKind memory() const override { return lanes::MemoryKind::kDevice; }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t) override {
    return absl::InternalError("host bytes were asked for");
  }
  absl::Status Fill(uint32_t, std::span<uint8_t>) override {
    return absl::InternalError("host bytes were asked for");
  }
  absl::Status FillDevice(uint32_t first, std::span<const std::span<uint8_t>> slots) override {
    for (uint32_t i = 0; i < slots.size(); ++i) {
      absl::Status status = ToDevice(slots[i].data(), blocks_.At(first + i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::vector<lanes::PinnedBytes> Pinned(uint32_t first, uint32_t blocks) override {
    std::vector<lanes::PinnedBytes> pinned;
    for (uint32_t i = first; pinned_ && i < std::min(first + blocks, count_); ++i) {
      pinned.push_back({.bytes = blocks_.At(i), .memory = lanes::MemoryKind::kDevice});
    }
    return pinned;
  }

 private:
  const DeviceBlocks& blocks_;
  const uint32_t count_;
  const bool pinned_;
};

class Rig {
 public:
  Rig(Peer& peer, const Options& options, const cluster::NcclContext& nccl)
      : options_(options), lane_(nccl.MakeLane(wire::MakeChannel(peer.address()), kAttachment)) {}

  lanes::LinkedLane& lane() { return *lane_; }
  const Options& options() const { return options_; }
  uint32_t blocks(uint32_t shape) const { return options_.amount.blocks(shape); }

  bool AwaitUp() {
    const absl::Time start = absl::Now();
    while (absl::Now() - start < kUpMax) {
      lane_->Prepare();
      if (lane_->link_state() == lanes::NcclLinkState::kUp) {
        std::printf("the link is up after %s\n", absl::FormatDuration(absl::Now() - start).c_str());
        return true;
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
    Check(false, "the link comes up in 30 s",
          absl::StrCat("it is ", lanes::NcclLinkStateName(lane_->link_state()),
                       "; NCCL's own words are above (more with NCCL_DEBUG=INFO)"));
    return false;
  }

  absl::Status Read(uint32_t shape, LeaseId lease, lanes::BlockSink& sink,
                    absl::Duration time = absl::Seconds(20)) {
    return lane_->Read({lease, 0, blocks(shape), kShapes[shape].block_bytes}, sink,
                       absl::Now() + time);
  }
  absl::Status Write(uint32_t shape, lanes::BlockSource& source) {
    lanes::WriteJob job{.reservation = ReservationOf(shape),
                        .block_bytes = kShapes[shape].block_bytes};
    for (uint32_t i = 0; i < blocks(shape); ++i) job.blocks.push_back(i);
    return lane_->Write(job, source, absl::Now() + absl::Seconds(20));
  }

 private:
  const Options options_;
  std::unique_ptr<lanes::LinkedLane> lane_;
};

void CheckBytesBothWays(Rig& rig) {
  for (uint32_t shape = 0; shape < kShapeCount; ++shape) {
    const Shape& s = kShapes[shape];
    const uint32_t count = rig.blocks(shape);
    const std::string what =
        absl::StrCat(s.name, ", ", count, " blocks of ", s.block_bytes, " bytes");
    DeviceSink sink(shape, /*compare=*/true);
    const absl::Status read = rig.Read(shape, LeaseOf(shape), sink);
    Check(read.ok() && sink.delivered() == count, absl::StrCat("read right: ", what),
          read.ToString());
    const DeviceBlocks mine =
        Must(DeviceBlocks::Create(rig.options().amount, shape, /*filled=*/true));
    for (const bool pinned : {true, false}) {
      DeviceSource source(mine, count, pinned);
      const absl::Status written = rig.Write(shape, source);
      DeviceSink back(shape, /*compare=*/true);
      const absl::Status again =
          written.ok() ? rig.Read(shape, WrittenOf(shape), back) : absl::OkStatus();
      Check(written.ok() && again.ok() && back.delivered() == count,
            absl::StrCat(pinned ? "sent from where they lie" : "sent from landing memory",
                         ", read back right: ", what),
            absl::StrCat(written.ToString(), ", ", again.ToString()));
    }
  }
}

// Reads until the peer is gone or stopped, which happens after the first whole job: the next group
// is under way then.
void CheckDisturbed(Rig& rig, Peer& peer, int signal, const std::string& name) {
  absl::Mutex mu;
  int jobs = 0;
  absl::Status status;
  bool ended = false;
  absl::Duration late;
  std::thread reader([&] {
    while (true) {
      const absl::Time deadline = absl::Now() + kReadMax;
      DeviceSink sink(0, /*compare=*/false);
      absl::Status now = rig.Read(0, LeaseOf(0), sink, kReadMax);
      absl::MutexLock lock(&mu);
      ++jobs;
      if (now.ok() && jobs < 10'000) continue;
      late = absl::Now() - deadline;
      status = now;
      ended = true;
      return;
    }
  });
  {
    absl::MutexLock lock(&mu);
    mu.Await(absl::Condition(
        +[](int* done) { return *done >= 3; }, &jobs));
  }
  signal == SIGSTOP ? peer.process().Stop() : peer.process().Signal(signal);
  const absl::Time hit = absl::Now();
  reader.join();
  Check(ended && !status.ok(), absl::StrCat(name, ": the read under way ends"), status.ToString());
  Check(late <= rig.options().late_max, absl::StrCat(name, ": by its deadline"),
        absl::StrCat(absl::FormatDuration(absl::Now() - hit), " after the signal"));
  const absl::Time aborting = absl::Now();
  while (rig.lane().link_state() == lanes::NcclLinkState::kFailed &&
         absl::Now() - aborting < 2 * rig.options().abort_max) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  Check(absl::Now() - aborting <= rig.options().abort_max,
        absl::StrCat(name, ": the abort returns in time"),
        absl::StrCat(absl::FormatDuration(absl::Now() - aborting), ", the link is ",
                     lanes::NcclLinkStateName(rig.lane().link_state())));
  const absl::StatusOr<DeviceBlocks> blocks =
      DeviceBlocks::Create(rig.options().amount, 1, /*filled=*/true);
  const bool works = blocks.ok() && *FromDevice(blocks->At(1)) == ContentOf(1, 1);
  Check(works, absl::StrCat(name, ": the GPU goes on working here"), blocks.status().ToString());
}

void CheckRecovered(Rig& rig, const std::string& name) {
  if (!rig.AwaitUp()) return;
  DeviceSink sink(1, /*compare=*/true);
  absl::Status status = rig.Read(1, LeaseOf(1), sink);
  Check(status.ok() && sink.delivered() == rig.blocks(1),
        absl::StrCat(name, ": the next transfer goes by a rebuilt link, right"), status.ToString());
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The lane's rounds before and after the bare ones, so that a drift of the machine shows in both.
void Measure(Rig& rig, Peer& peer, const cluster::NcclContext& nccl) {
  std::printf("\nNCCL lane, GB/s (10^9), two processes on one GPU over loopback sockets\n\n");
  std::printf("| blocks | MiB | lane read | bare ncclSend/ncclRecv | lane / bare |\n");
  std::printf("|---|---:|---:|---:|---:|\n");
  for (uint32_t shape = 0; shape < kShapeCount; ++shape) {
    const Shape& s = kShapes[shape];
    std::vector<double> lane;
    const auto rounds = [&] {
      for (int round = 0; round < kRounds; ++round) {
        DeviceSink sink(shape, /*compare=*/false);
        const absl::Time start = absl::Now();
        const absl::Status status = rig.Read(shape, LeaseOf(shape), sink);
        if (!status.ok()) {
          Check(false, absl::StrCat("measured read of ", s.name), status.ToString());
          return;
        }
        lane.push_back(absl::ToDoubleSeconds(absl::Now() - start));
      }
    };
    rounds();
    const std::string id = Must(NewBareId(nccl));
    peer.Tell(absl::StrCat("bare ", id, " ", shape, " ", kRounds));
    const absl::StatusOr<BareEnd> bare = RunBare(
        nccl,
        {.id = id, .rank = 0, .shape = shape, .rounds = kRounds, .amount = rig.options().amount});
    const std::string answer = peer.Answer();
    if (!bare.ok() || answer != "done") {
      Check(false, absl::StrCat("bare NCCL with ", s.name),
            absl::StrCat(bare.status().ToString(), "; the other process: ", answer));
      continue;
    }
    rounds();
    if (lane.empty()) continue;
    const double bytes = static_cast<double>(rig.blocks(shape) * s.block_bytes);
    std::printf("| %s, %u of %llu bytes | %.0f | %.2f | %.2f | %.2f |\n", s.name, rig.blocks(shape),
                static_cast<unsigned long long>(s.block_bytes), bytes / (1 << 20),
                bytes / Median(lane) / 1e9, bytes / Median(bare->seconds) / 1e9,
                Median(bare->seconds) / Median(lane));
    std::fflush(stdout);
  }
  std::printf("\n");
}

int RunAll(const std::string& self, const Options& options, const cluster::NcclContext& nccl) {
  Must(kernels::UseDevice(0));
  Peer peer(self, options);
  if (!peer.Start()) return 1;
  Rig rig(peer, options, nccl);
  if (!rig.AwaitUp()) return 1;
  CheckBytesBothWays(rig);
  Measure(rig, peer, nccl);

  CheckDisturbed(rig, peer, SIGSTOP, "SIGSTOP");
  peer.process().Continue();
  CheckRecovered(rig, "SIGSTOP and SIGCONT");

  CheckDisturbed(rig, peer, SIGKILL, "SIGKILL");
  peer.process().Wait(absl::Seconds(30));
  if (peer.Start()) CheckRecovered(rig, "SIGKILL and a new process");
  std::printf("%s\n", failures == 0 ? "PASSED" : absl::StrCat(failures, " FAILED").c_str());
  return failures == 0 ? 0 : 1;
}

int Skip(const std::string& why, int exit_code) {
  std::printf("SKIPPED: %s\n", why.c_str());
  return exit_code;
}

int Main(int argc, char** argv) {
  Options options;
  std::string listen, commands;
  bool is_peer = false;
  int skip_exit = 0;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--skip-exit=")) {
      skip_exit = std::atoi(std::string(argument).c_str());
    } else if (absl::ConsumePrefix(&argument, "--nccl-library=")) {
      options.nccl_library = std::string(argument);
    } else if (absl::ConsumePrefix(&argument, "--blocks-max=")) {
      options.amount.blocks_max = static_cast<uint32_t>(std::stoul(std::string(argument)));
    } else if (argument == "--patient") {
      options.abort_max = options.late_max = absl::Seconds(20);
    } else if (absl::ConsumePrefix(&argument, "--listen=")) {
      listen = std::string(argument);
    } else if (absl::ConsumePrefix(&argument, "--commands=")) {
      commands = std::string(argument);
    } else if (argument == "--peer") {
      is_peer = true;
    } else {
      std::fprintf(stderr, "reprise-gpu-nccl: unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  SetNcclEnvironment(is_peer ? "reprise-gpu-b" : "reprise-gpu-a");
  ::signal(SIGPIPE, SIG_IGN);
  if (is_peer) return ServePeer(options.amount, listen, commands, options.nccl_library);
  const std::string no_gpu = kernels::WhyNoDevice();
  if (!no_gpu.empty()) return Skip(absl::StrCat("no GPU to test on (", no_gpu, ")"), skip_exit);
  const auto nccl = cluster::NcclContext::Open(
      {.gpu = 0, .library = options.nccl_library, .connect_timeout = absl::Seconds(15)});
  if (!nccl.ok()) return Skip(std::string(nccl.status().message()), skip_exit);
  std::printf("%s\n", (*nccl)->Description().c_str());
  std::fflush(stdout);
  char self[4096];
  const ssize_t length = ::readlink("/proc/self/exe", self, sizeof(self));
  REPRISE_CHECK(length > 0);
  return RunAll(std::string(self, static_cast<size_t>(length)), options, **nccl);
}

}  // namespace
}  // namespace reprise::gpu_nccl

int main(int argc, char** argv) {
  return reprise::gpu_nccl::Main(argc, argv);
}
