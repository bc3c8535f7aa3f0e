// What a lane costs on one machine, beside memcpy of the same bytes, in the same run:
//   view, in place   the reader looks at every block where it lies (one byte per page)
//   view, copied     the reader copies every block out
//   view, filled     the writer copies every block into its slot
//   tcp              the same over the shard's own port on loopback
//   stream           the same over gRPC on loopback
//   TLS              and encrypted: tcp with a key, gRPC with certificates at both ends
// The shard's end of the view lane is another process; those of the others are in this one.
//
//   reprise-bench-lanes [--block-kib 2048] [--blocks 64] [--rounds 15] [--json]
// Prints medians with the lowest and highest round, the ratio to memcpy, and the load average.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/lanes/stream/stream_lane.h"
#include "cluster/lanes/view/view_lane.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/credentials.h"
#include "tests/support/lane_ends.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/stream_lane_server.h"
#include "tests/support/tcp_lane_ends.h"
#include "tests/support/test_authority.h"
#include "tests/support/view_host/view_host_process.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment(77);
constexpr size_t kPageBytes = 4096;

struct Options {
  uint64_t block_kib = 2048;
  uint32_t blocks = 64;
  int rounds = 15;
  bool json = false;
};

// Looks at one byte of every page, or copies the block to where an engine would want it.
class BenchSink final : public lanes::BlockSink {
 public:
  BenchSink(std::vector<uint8_t>& memory, uint64_t block_bytes, bool copies)
      : memory_(memory), block_bytes_(block_bytes), copies_(copies) {}
  std::span<uint8_t> Buffer(uint32_t i) override {
    return {memory_.data() + i * block_bytes_, block_bytes_};
  }
  absl::Status Complete(uint32_t) override { return absl::OkStatus(); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    if (copies_) {
      std::memcpy(memory_.data() + i * block_bytes_, bytes.data(), bytes.size());
      return absl::OkStatus();
    }
    for (size_t at = 0; at < bytes.size(); at += kPageBytes) {
      seen_ += const_cast<const volatile uint8_t*>(bytes.data())[at];
    }
    return absl::OkStatus();
  }

 private:
  std::vector<uint8_t>& memory_;
  const uint64_t block_bytes_;
  const bool copies_;
  uint64_t seen_ = 0;
};

class BenchSource final : public lanes::BlockSource {
 public:
  BenchSource(const std::vector<uint8_t>& memory, uint64_t block_bytes)
      : memory_(memory), block_bytes_(block_bytes) {}
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    return std::span<const uint8_t>(memory_.data() + i * block_bytes_, block_bytes_);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    std::memcpy(slot.data(), memory_.data() + i * block_bytes_, slot.size());
    return absl::OkStatus();
  }

 private:
  const std::vector<uint8_t>& memory_;
  const uint64_t block_bytes_;
};

struct Case {
  std::string name;
  std::function<void()> run;
  std::vector<double> gb_per_s;
};

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

void Print(const std::vector<Case>& cases, const Options& options) {
  double load[3] = {};
  getloadavg(load, 3);
  const double control = Quantile(cases.front().gb_per_s, .5);
  nlohmann::ordered_json out = {{"block_bytes", options.block_kib << 10},
                                {"blocks", options.blocks},
                                {"load_average", load[0]},
                                {"results", nlohmann::ordered_json::array()}};
  if (!options.json) {
    std::printf("%u blocks of %llu KiB, load average %.2f\n", options.blocks,
                static_cast<unsigned long long>(options.block_kib), load[0]);
    std::printf("%-22s %10s %18s %14s\n", "", "GB/s", "lowest..highest", "of memcpy");
  }
  for (const Case& one : cases) {
    const double median = Quantile(one.gb_per_s, .5), low = Quantile(one.gb_per_s, 0);
    const double high = Quantile(one.gb_per_s, 1);
    out["results"].push_back({{"name", one.name},
                              {"gb_per_s", median},
                              {"lowest", low},
                              {"highest", high},
                              {"of_memcpy", median / control}});
    if (options.json) continue;
    std::printf("%-22s %10.2f %8.2f..%-8.2f %14.2f\n", one.name.c_str(), median, low, high,
                median / control);
  }
  if (options.json) std::printf("%s\n", out.dump().c_str());
}

// A lane to a server in this process.
class Ends {
 public:
  explicit Ends(const Options& options) {
    const uint64_t bytes = options.block_kib << 10;
    lease_ = host_.Lease({.blocks = options.blocks, .block_bytes = bytes});
    reservation_ = host_.Reserve(options.blocks, bytes);
  }
  virtual ~Ends() = default;

  virtual lanes::Lane& lane() = 0;
  LeaseId lease() const { return lease_; }
  ReservationId reservation() const { return reservation_; }

 protected:
  lanes::LaneHost& host() { return host_; }

 private:
  MemoryLaneHost host_{kAttachment};
  LeaseId lease_;
  ReservationId reservation_;
};

// In plaintext without credentials.
class StreamEnds final : public Ends {
 public:
  StreamEnds(const Options& options, const std::shared_ptr<const wire::Credentials>& credentials)
      : Ends(options),
        server_(host(), credentials),
        lane_(wire::MakeChannel(server_.address(), credentials), kAttachment) {}
  lanes::Lane& lane() override { return lane_; }

 private:
  StreamLaneServer server_;
  lanes::StreamLane lane_;
};

class TcpEnds final : public Ends {
 public:
  TcpEnds(const Options& options, bool encrypted)
      : Ends(options), tcp_({.host = &host(), .encrypted = encrypted}, kAttachment) {}
  lanes::Lane& lane() override { return tcp_.lane(); }

 private:
  TcpLaneEnds tcp_;
};

std::shared_ptr<const wire::Credentials> BenchCredentials(TestAuthority& authority) {
  TlsOptions tls = authority.IssueTo("spiffe://bench/reprise");
  tls.servers = {"spiffe://bench/reprise"};
  auto loaded = wire::Credentials::Load(tls);
  REPRISE_CHECK(loaded.ok());
  return *std::move(loaded);
}

int Run(const Options& options) {
  const uint64_t bytes = options.block_kib << 10;
  const uint64_t total = bytes * options.blocks;
  std::vector<uint8_t> source(total, 1), memory(total, 2), slots(total, 3);
  const auto soon = [] { return absl::Now() + absl::Minutes(1); };

  ViewHostProcess process(kAttachment);
  const auto view = *lanes::ViewLane::Connect({process.address(), kAttachment}, soon());
  const LeaseId lease = process.Lease({.blocks = options.blocks, .block_bytes = bytes});
  const ReservationId reservation = process.Reserve(options.blocks, bytes);

  TestAuthority authority;
  StreamEnds stream(options, nullptr), secure_stream(options, BenchCredentials(authority));
  TcpEnds tcp(options, /*encrypted=*/false), secure_tcp(options, /*encrypted=*/true);

  const auto read = [&](lanes::Lane& lane, LeaseId id, bool copies) {
    BenchSink sink(memory, bytes, copies);
    REPRISE_CHECK(lane.Read({id, 0, options.blocks, bytes}, sink, soon()).ok());
  };
  const auto write = [&](lanes::Lane& lane, ReservationId id) {
    BenchSource from(source, bytes);
    REPRISE_CHECK(lane.Write({id, Iota(options.blocks), bytes}, from, soon()).ok());
  };
  std::vector<Case> cases = {
      {"memcpy",
       [&] {
         for (uint32_t i = 0; i < options.blocks; ++i) {
           std::memcpy(memory.data() + i * bytes, slots.data() + i * bytes, bytes);
         }
       },
       {}},
      {"view read, in place", [&] { read(*view, lease, false); }, {}},
      {"view read, copied", [&] { read(*view, lease, true); }, {}},
      {"view write, filled", [&] { write(*view, reservation); }, {}},
      {"tcp read", [&] { read(tcp.lane(), tcp.lease(), true); }, {}},
      {"tcp write", [&] { write(tcp.lane(), tcp.reservation()); }, {}},
      {"tcp read, TLS", [&] { read(secure_tcp.lane(), secure_tcp.lease(), true); }, {}},
      {"tcp write, TLS", [&] { write(secure_tcp.lane(), secure_tcp.reservation()); }, {}},
      {"stream read", [&] { read(stream.lane(), stream.lease(), true); }, {}},
      {"stream write", [&] { write(stream.lane(), stream.reservation()); }, {}},
      {"stream read, TLS", [&] { read(secure_stream.lane(), secure_stream.lease(), true); }, {}},
      {"stream write, TLS", [&] { write(secure_stream.lane(), secure_stream.reservation()); }, {}},
  };
  for (Case& one : cases) one.run();  // maps, faults in and warms
  for (int round = 0; round < options.rounds; ++round) {
    for (Case& one : cases) {
      const absl::Time started = absl::Now();
      one.run();
      one.gb_per_s.push_back(static_cast<double>(total) / 1e9 /
                             absl::ToDoubleSeconds(absl::Now() - started));
    }
  }
  Print(cases, options);
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"Lanes on one machine beside memcpy."};
  app.add_option("--block-kib", options.block_kib, "KiB of one block")->check(CLI::Range(1, 65536));
  app.add_option("--blocks", options.blocks, "Blocks of one call")->check(CLI::Range(1, 4096));
  app.add_option("--rounds", options.rounds, "Rounds, each case once per round")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--json", options.json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  return Run(options);
}

}  // namespace
}  // namespace reprise::testing

int main(int argc, char** argv) {
  return reprise::testing::Main(argc, argv);
}
