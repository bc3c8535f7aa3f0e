// What the tests of a disk that is kept share: one process after another in a folder, which ended
// in order or were killed.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
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
    uint64_t hbm_bytes = 0;  // of the device that control_ is of
  };
  ShardEngineOptions OptionsOf(const Config& config) const {
    ShardEngineOptions options{.dram_bytes = config.dram_bytes,
                               .hbm_bytes = config.hbm_bytes,
                               .nvme_bytes = config.nvme_bytes,
                               .nvme_folder = folder_,
                               .nvme_keep = true,
                               .quotas = config.quotas,
                               .claimed_share = 2.0,
                               .background_eviction = false,
                               .background_scrub = false};
    if (config.hbm_bytes > 0) {
      options.hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_);
    }
    if (config.secret.empty()) {
      options.nvme_cipher = DiskCipher::kNone;
    } else {
      options.nvme_key = KeyOf(config.secret);
    }
    return options;
  }
  static std::unique_ptr<DiskKey> KeyOf(const std::string& secret) {
    return *DiskKey::Of({reinterpret_cast<const uint8_t*>(secret.data()), secret.size()});
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

  // This process ends in order, and the next one finds what `change` made of its journal: what
  // another version wrote, or one that went wrong.
  void RestartWith(absl::FunctionRef<void(KeptContents&)> change) {
    engine_ = nullptr;
    const auto key = KeyOf(Config().secret);
    auto found = ReadJournal(PathOf("journal"), key.get());
    ASSERT_TRUE(found.ok()) << found.status();
    KeptContents& contents = found->contents;
    change(contents);
    const auto writer = JournalWriter::Create(PathOf("journal"), found->header, key.get());
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)
                    ->Append({.spaces = contents.spaces,
                              .blocks = contents.blocks,
                              .claims = contents.claims,
                              .closed = contents.closed})
                    .ok());
    ASSERT_TRUE((*writer)->Publish().ok());
    Begin();
    ExpectSound();
  }
  // Somebody reads the disk and is the first to see that it failed. REQUIRES: `keys` lie there.
  void LoseDisk(const std::vector<BlockKey>& keys) {
    const AcquireResult cold = Acquire(keys);
    const auto opened = engine_->OpenRead(me_, cold.lease, 0, 1);
    ASSERT_TRUE(opened.ok());
    std::filesystem::resize_file(PathOf("blocks"), 0);
    std::vector<uint8_t> bytes(kBlockBytes);
    ASSERT_FALSE(engine_->CopyToHost(opened->front().bytes, bytes).ok());
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
    auto found = ReadJournal(PathOf("journal"), KeyOf(Config().secret).get());
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

// What a kill leaves: ends of chains whose beginnings were in memory, and bytes that are not what
// the journal says.
class KilledTest : public KeptTest {
 protected:
  uint32_t Demote(const std::vector<BlockKey>& keys) {
    return engine_->Hint(me_, {.spec = spec_, .keys = keys, .hint = {.verb = HintVerb::kDemote}})
        ->blocks;
  }
  // Tails of conversations on the disk, under a system prompt that stayed in memory.
  std::vector<std::vector<BlockKey>> TailsUnder(const std::vector<BlockKey>& head, size_t count) {
    std::vector<std::vector<BlockKey>> chains;
    for (size_t i = 0; i < count; ++i) {
      chains.push_back(Branch(head, absl::StrCat("conversation ", i), 4));
      EXPECT_TRUE(Store(chains.back()).status.ok());
    }
    // Memory is short: the coldest ends go down, the head that all have in common stays.
    for (size_t i = 0; Run(chains.back()) == head.size() + 4 && i < 100; ++i) {
      const auto tiers = TiersOf(chains.back());
      if (tiers.size() == 2 && tiers[0].blocks == head.size()) break;
      EXPECT_TRUE(Store(ChainNamed(absl::StrCat("filler ", i), 4)).status.ok());
      AcquireAndRelease(head);
    }
    for (const auto& chain : chains) {
      EXPECT_THAT(TiersOf(chain),
                  ::testing::ElementsAre(Dram(static_cast<uint32_t>(head.size())), Nvme(4)));
    }
    return chains;
  }
  void AcquireAndRelease(const std::vector<BlockKey>& keys) {
    const AcquireResult acquired = Acquire(keys);
    EXPECT_TRUE(engine_->Release(me_, {{acquired.lease}}).ok());
  }
  // Where a block lies on the disk, as the journal says.
  SlotRef SlotOf(const BlockKey& key) {
    AwaitJournal();
    for (const KeptBlock& block : Journaled()) {
      if (block.key == key) return block.slot;
    }
    ADD_FAILURE() << "not there";
    return {};
  }
  // Other bytes are there from now on.
  void Damage(SlotRef slot) {
    std::fstream file(PathOf("blocks"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(slot.extent * 2 * kMiB + slot.index * kBlockBytes + 5));
    file << "nonsense";
  }
};

}  // namespace reprise::shard
