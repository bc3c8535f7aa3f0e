// What the tests of a disk that is kept share: one process after another in a folder, which ended
// in order or were killed.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "service/journal/journal.h"
#include "tests/support/soon.h"
#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {

// Two extents of 32 slots in dram, four on disk; chains of 8 blocks.
class KeptTest : public EngineTest {
 protected:
  static constexpr size_t kLength = 8;
  static constexpr size_t kFillDram = 8;  // chains
  static constexpr size_t kFillDisk = 16;

  void SetUp() override {
    folder_ = NewFolder();
    Begin();
  }
  void TearDown() override {
    EngineTest::TearDown();
    engine_ = nullptr;
    for (const std::string& folder : folders_) std::filesystem::remove_all(folder);
  }

  // What a test may want otherwise.
  struct Config {
    std::string secret = std::string(limits::kDiskKeyBytesMin, 's');  // empty: not enciphered
    uint64_t dram_bytes = 4 * kMiB;
    uint64_t nvme_bytes = 8 * kMiB;
    TenantQuotas quotas = {};
  };
  ShardEngineOptions OptionsOf(const Config& config) const {
    ShardEngineOptions options{.dram_bytes = config.dram_bytes,
                               .nvme_bytes = config.nvme_bytes,
                               .nvme_folder = folder_,
                               .nvme_keep = true,
                               .quotas = config.quotas,
                               .claimed_share = 2.0,
                               .background_eviction = false,
                               .background_scrub = false};
    if (config.secret.empty()) {
      options.nvme_cipher = DiskCipher::kNone;
    } else {
      const auto* const bytes = reinterpret_cast<const uint8_t*>(config.secret.data());
      options.nvme_key = *DiskKey::Of({bytes, config.secret.size()});
    }
    return options;
  }
  // The next process, in the same folder.
  void Begin() { Begin(Config()); }
  void Begin(const Config& config) { StartWith(OptionsOf(config)); }
  // This one ends in order, and another one begins.
  void Restart() { Restart(Config()); }
  void Restart(const Config& config) {
    ExpectSound();
    engine_ = nullptr;
    Begin(config);
    ExpectSound();
  }
  // This one is killed, when its journal had followed; another one finds what was on the disk, and
  // has checked it.
  void Crash() { Crash(Config()); }
  void Crash(const Config& config) {
    CrashUnchecked(config);
    engine_->Scrub();
    ExpectSound();
  }
  void CrashUnchecked() { CrashUnchecked(Config()); }
  void CrashUnchecked(const Config& config) {
    AwaitJournal();
    Abandon();
    Begin(config);
    ExpectSound();
  }
  // The same, whatever the journal says.
  void Abandon() {
    const std::string left = folder_;
    folder_ = NewFolder();
    for (const auto& file : std::filesystem::directory_iterator(left)) {
      std::filesystem::copy(file.path(), folder_ + "/" + file.path().filename().string());
    }
    engine_ = nullptr;
  }

  // Until the journal has just those blocks that lie on the disk.
  void AwaitJournal() {
    absl::flat_hash_set<BlockKey> stored;
    {
      const auto watch = engine_->Watch();
      while (true) {
        const auto event = *(*watch)->Next(absl::InfinitePast());
        if (!event.has_value() || event->kind == BlockEvent::Kind::kSnapshotEnd) break;
        if (event->tier == Tier::kNvme) stored.insert(event->keys.begin(), event->keys.end());
      }
    }
    const auto followed = [&] {
      const std::vector<KeptBlock> said = Journaled();
      const size_t there = std::count_if(said.begin(), said.end(), [&](const KeptBlock& block) {
        return stored.contains(block.key);
      });
      return there == stored.size() && said.size() == stored.size() + Disk().waiting_blocks;
    };
    EXPECT_TRUE(reprise::testing::Soon(followed));
  }
  std::vector<KeptBlock> Journaled() const {
    const std::string secret = Config().secret;
    const auto key = *DiskKey::Of({reinterpret_cast<const uint8_t*>(secret.data()), secret.size()});
    auto found = ReadJournal(PathOf("journal"), key.get());
    return found.ok() ? std::move(found->contents.blocks) : std::vector<KeptBlock>();
  }
  std::string PathOf(const std::string& suffix) const {
    return folder_ + "/reprise-shard-0." + suffix;
  }

  KeptDiskUse Disk() const { return *engine_->Describe(std::nullopt).kept_disk; }
  // All of memory, which takes no time here.
  uint64_t Save() { return engine_->Save(absl::Now() + absl::Minutes(1)).in_memory; }

  static std::vector<BlockKey> Chain(size_t i) { return ChainNamed(absl::StrCat("c", i), kLength); }
  void Fill(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      ASSERT_EQ(Store(Chain(i)).commit.committed, kLength) << i;
    }
  }
  // A chain that goes on from the first blocks of another one.
  static std::vector<BlockKey> Branch(const std::vector<BlockKey>& head, const std::string& name,
                                      size_t blocks) {
    std::vector<BlockKey> keys = head;
    for (const BlockKey& key : ChainNamed(name, blocks)) keys.push_back(key);
    return keys;
  }
  void ExpectStored(const std::vector<BlockKey>& keys) {
    const AcquireResult acquired = Acquire(keys);
    ASSERT_EQ(acquired.run_blocks, keys.size());
    ExpectReads(acquired.lease, keys);
    EXPECT_EQ(*engine_->Release(me_, {{acquired.lease}}), 1u);
  }
  void ExpectStored(size_t first, size_t chains) {
    for (size_t i = first; i < first + chains; ++i) {
      SCOPED_TRACE(i);
      ExpectStored(Chain(i));
    }
  }

  std::string folder_;

 private:
  std::string NewFolder() {
    std::string folder = (std::filesystem::temp_directory_path() / "kept-XXXXXX").string();
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    folders_.push_back(folder);
    return folder;
  }
  std::vector<std::string> folders_;
};

}  // namespace reprise::shard
