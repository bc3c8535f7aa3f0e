// What it costs to keep a disk over restarts, beside what the machine can do without:
//   restore   a shard's start over the journal of many small blocks, encrypted, against reading
//             that file alone
//   save      all of memory to the disk before a stop, encrypted, against memcpy of the same bytes;
//             then the end, with everything on the disk, and the next start
//
//   reprise-bench-disk [--blocks 1000000] [--memory-mib 1024] [--rounds 3] [--folder FOLDER]
//                      [--json]
// Prints medians with the lowest and highest round, and the load average.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "service/journal/kept_disk.h"
#include "service/pool/file_pool.h"
#include "service/shard/shard_engine.h"
#include "tests/support/block_content.h"

namespace reprise::shard {
namespace {

using reprise::testing::ChainNamed;
using reprise::testing::ChecksumOf;
using reprise::testing::SmallSpec;

struct Options {
  uint32_t blocks = 1'000'000;
  uint64_t memory_mib = 1024;
  int rounds = 3;
  std::string folder = std::filesystem::temp_directory_path().string();
  bool json = false;
};

constexpr uint32_t kChainBlocks = 64;

double Seconds(const std::function<void()>& body) {
  const absl::Time started = absl::Now();
  body();
  return absl::ToDoubleSeconds(absl::Now() - started);
}

struct Line {
  std::string name, unit;
  std::vector<double> values;
};

class Report {
 public:
  void Add(const std::string& name, const std::string& unit, double value) {
    for (Line& line : lines_) {
      if (line.name == name) return line.values.push_back(value);
    }
    lines_.push_back({name, unit, {value}});
  }
  void Print(bool json) {
    double load[3] = {};
    getloadavg(load, 3);
    nlohmann::ordered_json rows;
    if (!json)
      std::printf("load average %.1f\n%-52s %10s %10s %10s\n", load[0], "", "median", "low",
                  "high");
    for (Line& line : lines_) {
      std::sort(line.values.begin(), line.values.end());
      const double median = line.values[line.values.size() / 2];
      if (json) {
        rows[line.name] = {{"unit", line.unit},
                           {"median", median},
                           {"low", line.values.front()},
                           {"high", line.values.back()}};
        continue;
      }
      std::printf("%-52s %10.3f %10.3f %10.3f %s\n", line.name.c_str(), median, line.values.front(),
                  line.values.back(), line.unit.c_str());
    }
    if (json) {
      rows["load_average"] = load[0];
      std::printf("%s\n", rows.dump(1).c_str());
    }
  }

 private:
  std::vector<Line> lines_;
};

std::unique_ptr<DiskKey> Key() {
  const std::vector<uint8_t> secret(limits::kDiskKeyBytesMin, 7);
  return *DiskKey::Of(secret);
}

// A folder of its own, removed at the end.
class Folder {
 public:
  explicit Folder(const std::string& in) : path_(in + "/reprise-bench-disk-XXXXXX") {
    REPRISE_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

ShardEngineOptions OptionsOf(const Folder& folder, uint64_t dram_bytes, uint64_t nvme_bytes) {
  return {.id = {"bench"},
          .dram_bytes = dram_bytes,
          .nvme_bytes = nvme_bytes,
          .nvme_folder = folder.path(),
          .nvme_keep = true,
          .nvme_key = Key()};
}

std::unique_ptr<ShardEngine> Start(ShardEngineOptions options) {
  auto engine = ShardEngine::Create(std::move(options));
  if (!engine.ok()) std::fprintf(stderr, "%s\n", std::string(engine.status().message()).c_str());
  REPRISE_CHECK(engine.ok());
  return *std::move(engine);
}

// What a process leaves that had `blocks` of the smallest blocks, in conversations.
void LeaveBlocks(const Folder& folder, uint32_t blocks, uint64_t nvme_bytes) {
  const FilePoolGeometry geometry = FilePool::GeometryFor(nvme_bytes);
  auto disk = KeptDisk::Open({.folder = folder.path(),
                              .shard = {"bench"},
                              .extent_bytes = geometry.extent_bytes,
                              .key = Key()});
  REPRISE_CHECK(disk.ok());
  REPRISE_CHECK(::ftruncate((*disk)->blocks_fd(), static_cast<off_t>(geometry.bytes())) == 0);
  auto journal = (*disk)->NewJournal();
  REPRISE_CHECK(journal.ok());
  const CacheSpec spec = SmallSpec(4, 1);
  const BlockLayout layout = LayoutOf(spec);
  const auto slots = static_cast<uint32_t>(geometry.extent_bytes / layout.block_bytes);
  KeptBatch batch;
  batch.spaces.push_back({.number = 1,
                          .tenant = {"default"},
                          .fingerprint = FingerprintOf(spec),
                          .spec = spec,
                          .shape = {layout.block_bytes, layout.layer_bytes}});
  std::vector<BlockKey> keys;
  for (uint32_t i = 0; i < blocks; ++i) {
    const uint32_t depth =
        kChainBlocks - 1 - i % kChainBlocks;  // a prompt's beginning is used last
    if (i % kChainBlocks == 0) keys = ChainNamed(absl::StrCat(i), kChainBlocks);
    batch.blocks.push_back(
        {.space = 1,
         .slot = {i / slots, i % slots},
         .key = keys[depth],
         .parent = depth > 0 ? std::optional(keys[depth - 1]) : std::nullopt,
         .depth = depth,
         .token_position = depth,
         .session_id = absl::StrCat("6f1e1c5a-0000-4000-8000-", 100'000'000'000 + i / kChainBlocks),
         .token_ids = std::vector<uint32_t>(spec.block_tokens, 50'000 + i % 1000)});
    if (batch.blocks.size() == limits::kJournalBatchBlocks || i + 1 == blocks) {
      REPRISE_CHECK((*journal)->Append(batch).ok());
      batch = {};
    }
  }
  REPRISE_CHECK((*journal)->Publish().ok());
  REPRISE_CHECK((*journal)->Append({.closed = true}).ok());
}

uint64_t ReadWhole(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::vector<uint8_t> buffer(1 << 20);
  uint64_t bytes = 0;
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    bytes += static_cast<uint64_t>(got);
  }
  ::close(fd);
  return bytes;
}

void MeasureRestore(const Options& options, Report& report) {
  const uint64_t nvme_bytes = uint64_t{options.blocks} * 256 + (64 << 20);
  for (int round = 0; round < options.rounds; ++round) {
    const Folder folder(options.folder);
    LeaveBlocks(folder, options.blocks, nvme_bytes);
    uint64_t bytes = 0;
    const double read =
        Seconds([&] { bytes = ReadWhole(folder.path() + "/reprise-bench.journal"); });
    std::unique_ptr<ShardEngine> engine;
    const double restored =
        Seconds([&] { engine = Start(OptionsOf(folder, 4 << 20, nvme_bytes)); });
    const KeptDiskUse use = *engine->Describe(std::nullopt).kept_disk;
    REPRISE_CHECK(use.restored_blocks == options.blocks && use.waiting_blocks == 0 && use.clean);
    const std::string what = absl::StrCat(options.blocks, " blocks");
    report.Add(absl::StrCat("start over ", what), "s", restored);
    report.Add(absl::StrCat("reading the journal of ", what, " alone"), "s", read);
    report.Add("journal, a block", "bytes",
               static_cast<double>(bytes) / static_cast<double>(options.blocks));
    report.Add(absl::StrCat("end with ", what), "s", Seconds([&] { engine = nullptr; }));
  }
}

void StoreBlocks(ShardEngine& engine, const CacheSpec& spec, uint32_t blocks) {
  const AttachmentId me = *engine.Attach(Tenant{"default"}, "bench");
  const SpecHandle handle = engine.OpenSpec(me, spec, std::nullopt)->handle;
  const BlockLayout layout = LayoutOf(spec);
  std::vector<uint8_t> bytes(layout.block_bytes);
  for (uint32_t first = 0; first < blocks; first += kChainBlocks) {
    const auto keys = ChainNamed(absl::StrCat(first), std::min(kChainBlocks, blocks - first));
    const auto reserved = engine.Reserve(me, {.spec = handle, .keys = keys});
    REPRISE_CHECK(reserved.ok());
    std::vector<Checksum128> checksums;
    for (uint32_t i = 0; i < keys.size(); ++i) {
      reprise::testing::FillContent(keys[i], 1, bytes);
      const auto slot = engine.OpenWrite(me, reserved->reservation, i);
      REPRISE_CHECK(slot.ok() && slot->memory == lanes::MemoryKind::kHost);
      std::memcpy(slot->bytes.data(), bytes.data(), bytes.size());
      REPRISE_CHECK(engine.Written(me, reserved->reservation, i, bytes.size()).ok());
      checksums.push_back(ChecksumOf(bytes, layout.layer_bytes));
    }
    REPRISE_CHECK(
        engine.Commit(me, {.reservation = reserved->reservation, .checksums = checksums}).ok());
  }
  engine.Detach(me);
}

void MeasureSave(const Options& options, Report& report) {
  const CacheSpec spec = SmallSpec(32, 512);  // 1 MiB
  const uint64_t block_bytes = LayoutOf(spec).block_bytes;
  const uint64_t dram_bytes = options.memory_mib << 20;
  // Below the watermark, so that nothing moves before.
  const auto blocks = static_cast<uint32_t>(dram_bytes / block_bytes * 9 / 10);
  const double gigabytes = static_cast<double>(blocks) * static_cast<double>(block_bytes) / 1e9;
  for (int round = 0; round < options.rounds; ++round) {
    const Folder folder(options.folder);
    const uint64_t nvme_bytes = 2 * dram_bytes;
    std::unique_ptr<ShardEngine> engine = Start(OptionsOf(folder, dram_bytes, nvme_bytes));
    StoreBlocks(*engine, spec, blocks);
    const std::vector<uint8_t> from(blocks * block_bytes, 1);
    std::vector<uint8_t> to(from.size(), 2);
    const double copied = Seconds([&] { std::memcpy(to.data(), from.data(), from.size()); });
    uint64_t left = 0;
    const double saved =
        Seconds([&] { left = engine->Save(absl::Now() + absl::Minutes(10)).in_memory; });
    REPRISE_CHECK(left == 0);
    const std::string what = absl::StrCat(blocks, " MiB");
    report.Add(absl::StrCat("save ", what), "GB/s", gigabytes / saved);
    report.Add(absl::StrCat("memcpy of ", what, ", one thread"), "GB/s", gigabytes / copied);
    report.Add(absl::StrCat("end with ", what, ", until it is on the disk"), "s",
               Seconds([&] { engine = nullptr; }));
    report.Add(absl::StrCat("start over ", what), "s",
               Seconds([&] { engine = Start(OptionsOf(folder, dram_bytes, nvme_bytes)); }));
    REPRISE_CHECK(engine->Describe(std::nullopt).kept_disk->restored_blocks == blocks);
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app{"What keeping a disk over restarts costs."};
  app.add_option("--blocks", options.blocks, "to restore")->capture_default_str();
  app.add_option("--memory-mib", options.memory_mib, "to save")->capture_default_str();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  app.add_option("--folder", options.folder, "on the disk to measure")->capture_default_str();
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  Report report;
  MeasureRestore(options, report);
  MeasureSave(options, report);
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace reprise::shard

int main(int argc, char** argv) {
  return reprise::shard::Main(argc, argv);
}
