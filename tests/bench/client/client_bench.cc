// What the client costs, end to end, beside what the machine can do without it, in the same run:
//   keys      against one-shot OpenSSL digests of the same bytes
//   acquire   against a round trip of the same number of bytes over a bare loopback socket
//   store, fetch against memcpy of the same bytes, and against a bare loopback socket that carries
//   them
//   disk      demotion to the tier on a disk, and fetch from there, against the fetch from memory;
//             what was written a moment ago is in the page cache, so this is the tier's own cost.
//             Encrypted, as is the default, against one that is not, in turns
//
//   reprise-bench-client [--blocks 64] [--block-kib 1024] [--rounds 9] [--disk FOLDER] [--json]
// Starts a cluster of its own (`reprise up`, found beside this program). Prints medians, with the
// lowest and highest round, and the load average: figures of a busy machine are not figures.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "client/cpp/prefix_hasher.h"
#include "nlohmann/json.hpp"
#include "proto/types/status_macros.h"
#include "tests/support/block_content.h"
#include "tests/support/process.h"

namespace reprise::client {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  uint32_t blocks = 64;
  uint32_t block_kib = 1024;
  int rounds = 9;
  std::string disk = std::filesystem::temp_directory_path().string();
  bool json = false;
};

double Seconds(const std::function<void()>& body) {
  const absl::Time started = absl::Now();
  body();
  return absl::ToDoubleSeconds(absl::Now() - started);
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

// One line of the table.
struct Line {
  std::string name;
  std::string unit;
  double median = 0, low = 0, high = 0;
  double control = 0;  // the same unit
  std::string control_name;
};

class Report {
 public:
  void Rate(const std::string& name, const std::string& unit, std::vector<double> values,
            double control = 0, const std::string& control_name = "") {
    lines_.push_back({name, unit, Quantile(values, .5), Quantile(values, 0), Quantile(values, 1),
                      control, control_name});
  }
  double Last() const { return lines_.back().median; }

  void Print(bool json) const {
    double load[3] = {};
    getloadavg(load, 3);
    if (json) {
      Json out = {{"load_average", load[0]}, {"results", Json::array()}};
      for (const Line& line : lines_) {
        Json one = {{"name", line.name},
                    {"unit", line.unit},
                    {"median", line.median},
                    {"low", line.low},
                    {"high", line.high}};
        if (line.control != 0) {
          one["control"] = {{"name", line.control_name},
                            {"median", line.control},
                            {"ratio", line.median / line.control}};
        }
        out["results"].push_back(std::move(one));
      }
      std::printf("%s\n", out.dump().c_str());
      return;
    }
    std::printf("load average %.2f\n%-34s %9s %19s  %s\n", load[0], "", "median", "low .. high",
                "against");
    for (const Line& line : lines_) {
      std::printf("%-34s %9.3f %8.3f .. %7.3f  %-5s", line.name.c_str(), line.median, line.low,
                  line.high, line.unit.c_str());
      if (line.control != 0)
        std::printf(" %.2f x %s", line.median / line.control, line.control_name.c_str());
      std::printf("\n");
    }
  }

 private:
  std::vector<Line> lines_;
};

// ---- Controls

// A bare loopback connection with a thread that receives, or answers, at its other end.
class BareSocket {
 public:
  BareSocket() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    REPRISE_CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                  listen(listener, 1) == 0);
    REPRISE_CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    near_ = socket(AF_INET, SOCK_STREAM, 0);
    REPRISE_CHECK(connect(near_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    far_ = accept(listener, nullptr, nullptr);
    close(listener);
    const int on = 1;
    setsockopt(near_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(far_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  ~BareSocket() {
    close(near_);
    close(far_);
  }
  // `from` goes through the socket into `to`.
  void Carry(const std::vector<uint8_t>& from, std::vector<uint8_t>& to) {
    std::thread receiver([&] { Receive(far_, to.data(), to.size()); });
    Send(near_, from.data(), from.size());
    receiver.join();
  }
  double RoundTrip(size_t ask_bytes, size_t answer_bytes) {
    std::vector<uint8_t> ask(ask_bytes), answer(answer_bytes);
    std::thread server([&] {
      std::vector<uint8_t> seen(ask_bytes), reply(answer_bytes);
      Receive(far_, seen.data(), seen.size());
      Send(far_, reply.data(), reply.size());
    });
    const double seconds = Seconds([&] {
      Send(near_, ask.data(), ask.size());
      Receive(near_, answer.data(), answer.size());
    });
    server.join();
    return seconds;
  }

 private:
  static void Send(int socket, const uint8_t* data, size_t bytes) {
    while (bytes > 0) {
      const ssize_t sent = send(socket, data, bytes, MSG_NOSIGNAL);
      REPRISE_CHECK(sent > 0);
      data += sent;
      bytes -= static_cast<size_t>(sent);
    }
  }
  static void Receive(int socket, uint8_t* data, size_t bytes) {
    while (bytes > 0) {
      const ssize_t got = recv(socket, data, bytes, 0);
      REPRISE_CHECK(got > 0);
      data += got;
      bytes -= static_cast<size_t>(got);
    }
  }
  int near_ = -1;
  int far_ = -1;
};

void BenchKeys(const Options& options, Report& report) {
  constexpr size_t kKeys = 1 << 16;
  constexpr uint32_t kBlockTokens = 16;
  std::vector<uint32_t> tokens(kKeys * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<uint32_t>(i * 2654435761u % 128'000);
  std::vector<BlockKey> keys(kKeys);
  std::vector<double> ours, one_shot;
  const std::vector<uint8_t> input = EncodeKeyInput(std::span(tokens).first(kBlockTokens), {});
  for (int round = 0; round < options.rounds; ++round) {
    ours.push_back(kKeys / Seconds([&] { PrefixKeysInto(tokens, kBlockTokens, {}, keys); }) / 1e6);
    one_shot.push_back(kKeys / Seconds([&] {
                         for (BlockKey& key : keys) {
                           EVP_Digest(input.data(), input.size(), key.bytes.data(), nullptr,
                                      EVP_sha256(), nullptr);
                         }
                       }) /
                       1e6);
  }
  report.Rate("keys, 16 tokens a block", "M/s", ours, Quantile(one_shot, .5),
              "one-shot EVP_Digest");
}

// ---- The client

class ClientBench {
 public:
  ClientBench(const Options& options, const std::string& router, Report& report)
      : options_(options), router_(router), report_(report) {
    spec_.model = "bench";
    spec_.attention = AttentionKind::kGqa;
    spec_.dtype = DataType::kBf16;
    spec_.kv_heads = 8;
    spec_.head_dim = 128;
    spec_.block_tokens = 16;
    // A layer's K and V are 64 KiB.
    spec_.layers = std::max(1u, options.block_kib / 64);
    bytes_ = uint64_t{options_.blocks} * LayoutOf(spec_).block_bytes;
    from_.assign(bytes_, 1);
    to_.assign(bytes_, 2);
    for (uint32_t i = 0; i < options_.blocks; ++i) {
      reprise::testing::FillContent(BlockKey(), i,
                                    std::span(from_).subspan(i * BlockBytes(), BlockBytes()));
    }
  }

  void Controls() {
    BareSocket wire;
    std::vector<double> copy, carried;
    for (int round = 0; round < options_.rounds; ++round) {
      copy.push_back(Gigabytes(Seconds([&] { std::memcpy(to_.data(), from_.data(), bytes_); })));
      carried.push_back(Gigabytes(Seconds([&] { wire.Carry(from_, to_); })));
    }
    report_.Rate("memcpy", "GB/s", copy);
    memcpy_ = report_.Last();
    report_.Rate("bare loopback socket", "GB/s", carried);
    socket_ = report_.Last();
  }

  void Lane(const std::string& name, std::vector<LaneKind> lanes) {
    auto client = *Client::Create({.routers = {router_},
                                   .name = "bench",
                                   .timeout = absl::Seconds(30),
                                   .lanes = std::move(lanes)});
    const auto spec = *client->OpenSpec(spec_);
    const bool view = name == "view";
    const double control = view ? memcpy_ : socket_;
    const std::string against = view ? "memcpy" : "bare socket";
    for (bool paged : {false, true}) {
      std::vector<double> stores, fetches;
      for (int round = -1; round < options_.rounds; ++round) {
        const auto keys = Keys(absl::StrCat(name, paged, round));
        const double store = Seconds([&] {
          const auto result = client->Store({.spec = spec,
                                             .keys = keys,
                                             .session = "bench",
                                             .memory = Memory(*spec, from_, paged)});
          REPRISE_CHECK(result.ok() && result->stored == options_.blocks);
        });
        const auto acquired = client->Acquire({.spec = spec, .keys = keys, .session = "bench"});
        REPRISE_CHECK(acquired.ok() && acquired->run->blocks() == options_.blocks);
        std::memset(to_.data(), 0, to_.size());
        const double fetch = Seconds([&] {
          const auto result = client->Fetch(
              acquired->run,
              {.first = 0, .count = options_.blocks, .memory = Memory(*spec, to_, paged)});
          REPRISE_CHECK(result.ok() && result->blocks == options_.blocks);
        });
        REPRISE_CHECK(from_ == to_);
        if (round < 0) continue;  // warms connections, staging and pages
        stores.push_back(Gigabytes(store));
        fetches.push_back(Gigabytes(fetch));
      }
      const std::string form = paged ? ", paged" : ", buffers";
      report_.Rate(absl::StrCat("store, ", name, form), "GB/s", stores, control, against);
      report_.Rate(absl::StrCat("fetch, ", name, form), "GB/s", fetches, control, against);
      if (!view && !paged) stream_ = report_.Last();
    }
  }

  // Of a cluster with an encrypted disk, and of one whose disk is not.
  void Disk(const std::string& encrypted_router, const std::string& plain_router) {
    OnDisk encrypted(OpenOnStream(encrypted_router)), plain(OpenOnStream(plain_router));
    for (int round = -1; round < options_.rounds; ++round) {
      for (OnDisk* disk : {&plain, &encrypted}) DemoteAndFetch(round, *disk);
    }
    report_.Rate("demotion to a disk, not encrypted", "GB/s", plain.moves, memcpy_, "memcpy");
    const double plain_move = report_.Last();
    report_.Rate("fetch, stream, from that disk", "GB/s", plain.fetches, stream_, "from memory");
    const double plain_fetch = report_.Last();
    report_.Rate("demotion to an encrypted disk", "GB/s", encrypted.moves, plain_move,
                 "not encrypted");
    report_.Rate("fetch, stream, from that disk", "GB/s", encrypted.fetches, plain_fetch,
                 "not encrypted");
  }

  void Latency() {
    constexpr int kCalls = 1000;
    auto client =
        *Client::Create({.routers = {router_}, .name = "bench", .timeout = absl::Seconds(30)});
    const auto spec = *client->OpenSpec(spec_);
    const auto keys = Keys("latency");
    REPRISE_CHECK(client
                      ->Store({.spec = spec,
                               .keys = keys,
                               .session = "latency",
                               .memory = Memory(*spec, from_, false)})
                      ->stored == options_.blocks);
    BareSocket wire;
    std::vector<double> hits, misses, bare, one_block;
    const auto absent = Keys("absent");
    for (int i = 0; i < kCalls; ++i) {
      std::shared_ptr<Run> run;
      hits.push_back(1e6 * Seconds([&] {
                       run =
                           client->Acquire({.spec = spec, .keys = keys, .session = "latency"})->run;
                     }));
      one_block.push_back(1e6 * Seconds([&] {
                            (void)client->Fetch(
                                run, {.first = 0, .count = 1, .memory = Memory(*spec, to_, false)});
                          }));
      misses.push_back(1e6 * Seconds([&] {
                         (void)client->Acquire({.spec = spec, .keys = absent, .session = "absent"});
                       }));
      bare.push_back(1e6 *
                     wire.RoundTrip(keys.size() * kDigestBytes, keys.size() * kChecksumBytes));
    }
    for (double q : {.5, .99}) {
      const std::string p = q == .5 ? " p50" : " p99";
      const double control = Quantile(bare, q);
      report_.Rate(absl::StrCat("acquire, hit", p), "us", {Quantile(hits, q)}, control,
                   "bare round trip");
      report_.Rate(absl::StrCat("acquire, miss", p), "us", {Quantile(misses, q)}, control,
                   "bare round trip");
      report_.Rate(absl::StrCat("fetch of one block", p), "us", {Quantile(one_block, q)});
    }
  }

 private:
  struct OnDisk {
    explicit OnDisk(std::unique_ptr<Client> opened) : client(std::move(opened)) {}
    const std::unique_ptr<Client> client;
    std::vector<double> moves, fetches;
  };

  static std::unique_ptr<Client> OpenOnStream(const std::string& router) {
    return *Client::Create({.routers = {router},
                            .name = "bench",
                            .timeout = absl::Seconds(60),
                            .lanes = {LaneKind::kStream}});
  }

  void DemoteAndFetch(int round, OnDisk& disk) {
    const auto spec = *disk.client->OpenSpec(spec_);
    const auto keys = Keys(absl::StrCat("disk", round));
    const auto stored = disk.client->Store(
        {.spec = spec, .keys = keys, .session = "bench", .memory = Memory(*spec, from_, false)});
    REPRISE_CHECK(stored.ok() && stored->stored == options_.blocks);
    const double move = Seconds([&] {
      const auto moved = disk.client->Hint(
          {.spec = spec, .keys = keys, .session = "bench", .hint = {.verb = HintVerb::kDemote}});
      REPRISE_CHECK(moved.ok() && moved->result.blocks == options_.blocks);
    });
    const double fetch = FetchSeconds(disk, spec, keys);
    // The next round finds the same places, and their pages.
    const auto gone = disk.client->Hint(
        {.spec = spec, .keys = keys, .session = "bench", .hint = {.verb = HintVerb::kEvict}});
    REPRISE_CHECK(gone.ok() && gone->result.blocks == options_.blocks);
    if (round < 0) return;  // warms connections and pages
    disk.moves.push_back(Gigabytes(move));
    disk.fetches.push_back(Gigabytes(fetch));
  }

  double FetchSeconds(OnDisk& disk, const std::shared_ptr<const ClientSpec>& spec,
                      const std::vector<BlockKey>& keys) {
    const auto acquired = disk.client->Acquire({.spec = spec, .keys = keys, .session = "bench"});
    REPRISE_CHECK(acquired.ok() && acquired->run->blocks() == options_.blocks);
    std::memset(to_.data(), 0, to_.size());
    const double seconds = Seconds([&] {
      const auto result = disk.client->Fetch(
          acquired->run,
          {.first = 0, .count = options_.blocks, .memory = Memory(*spec, to_, false)});
      REPRISE_CHECK(result.ok() && result->blocks == options_.blocks);
    });
    REPRISE_CHECK(from_ == to_);
    return seconds;
  }

  uint64_t BlockBytes() const { return LayoutOf(spec_).block_bytes; }
  double Gigabytes(double seconds) const { return static_cast<double>(bytes_) / seconds / 1e9; }
  std::vector<BlockKey> Keys(const std::string& name) const {
    return reprise::testing::ChainNamed(absl::StrCat(getpid(), " ", name), options_.blocks);
  }

  // Whole blocks, or the same bytes as tensors of 16-token pages: [plane][page][head][token][row].
  CallerMemory Memory(const ClientSpec& spec, std::vector<uint8_t>& bytes, bool paged) const {
    CallerMemory memory;
    const BlockLayout& layout = spec.layout;
    if (!paged) {
      for (uint32_t i = 0; i < options_.blocks; ++i)
        memory.buffers.push_back(bytes.data() + i * layout.block_bytes);
      return memory;
    }
    std::vector<kernels::PagedPlane> planes;
    const auto row = static_cast<int64_t>(layout.row_bytes);
    for (uint32_t i = 0; i < layout.layers * layout.planes; ++i) {
      planes.push_back({bytes.data() + i * layout.plane_bytes * options_.blocks,
                        static_cast<int64_t>(layout.plane_bytes), row * layout.tokens, row});
    }
    memory.plan = *MakePagedPlan(layout, std::move(planes), layout.tokens);
    for (uint32_t i = 0; i < options_.blocks; ++i) memory.pages.push_back(i);
    return memory;
  }

  const Options options_;
  const std::string router_;
  Report& report_;
  CacheSpec spec_;
  uint64_t bytes_ = 0;
  std::vector<uint8_t> from_, to_;
  double memcpy_ = 0, socket_ = 0;
  double stream_ = 0;  // fetch by the stream lane, from memory
};

// A cluster of one shard.
class OneShard {
 public:
  explicit OneShard(const std::vector<std::string>& memory) : up_(Command(memory)) {
    const auto line = up_.ReadLine(absl::Minutes(2));
    REPRISE_CHECK(line.has_value());
    router_ = Json::parse(*line)["router"];
  }
  ~OneShard() {
    up_.Signal(SIGTERM);
    up_.Wait(absl::Seconds(30));
  }
  OneShard(const OneShard&) = delete;
  OneShard& operator=(const OneShard&) = delete;
  const std::string& router() const { return router_; }

 private:
  static std::vector<std::string> Command(const std::vector<std::string>& memory) {
    std::vector<std::string> command = {reprise::testing::BinFolder() + "/reprise", "up"};
    command.insert(command.end(), {"--shards", "1", "--replication", "1", "-o", "json"});
    command.insert(command.end(), memory.begin(), memory.end());
    return command;
  }

  reprise::testing::Process up_;
  std::string router_;
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("What the client costs, beside what the machine can do without it.");
  app.add_option("--blocks", options.blocks, "blocks in a chain")->capture_default_str();
  app.add_option("--block-kib", options.block_kib, "size of a block")->capture_default_str();
  app.add_option("--rounds", options.rounds, "rounds of each measurement")->capture_default_str();
  app.add_option("--disk", options.disk, "folder on the disk to measure")->capture_default_str();
  app.add_flag("--json", options.json, "one JSON object instead of a table");
  CLI11_PARSE(app, argc, argv);
  // Room for every round of both lanes and both forms, so that nothing is evicted while it is
  // measured.
  const auto rounds = static_cast<uint64_t>(options.rounds) + 1;
  const auto room = [&](uint64_t chains) {
    return absl::StrCat(chains * options.blocks * options.block_kib / 1024 * 11 / 10 + 64, "MiB");
  };
  const auto on_disk = [&](const std::string& cipher) -> std::vector<std::string> {
    return {"--dram",     room(2),      "--nvme",        room(2),
            "--nvme-dir", options.disk, "--nvme-cipher", cipher};
  };
  OneShard in_memory({"--dram", room(4 * rounds + 2)});
  OneShard encrypted(on_disk("aes-256")), plain(on_disk("none"));
  Report report;
  BenchKeys(options, report);
  ClientBench bench(options, in_memory.router(), report);
  bench.Controls();
  bench.Lane("stream", {LaneKind::kStream});
  bench.Lane("view", {LaneKind::kView, LaneKind::kStream});
  bench.Disk(encrypted.router(), plain.router());
  bench.Latency();
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace reprise::client

int main(int argc, char** argv) {
  return reprise::client::Main(argc, argv);
}
