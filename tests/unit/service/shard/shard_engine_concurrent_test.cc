// Many threads store, read, remove, detach and evict at once; every byte that any of them reads is
// checked.

#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "tests/unit/service/shard/engine_fixture.h"

namespace reprise::shard {
namespace {

constexpr int kThreads = 6;
constexpr int kOperations = 1200;
constexpr uint64_t kContentSeed = 11;

class Storm : public ::testing::Test {
 protected:
  void Start(uint64_t hbm_bytes) {
    auto engine =
        ShardEngine::Create({.id = {"shard-0"},
                             .dram_bytes = 6 * kMiB,
                             .hbm_bytes = hbm_bytes,
                             .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>()});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  // With a disk that is kept, in `folder`.
  void StartKept(const std::string& folder) {
    auto engine = ShardEngine::Create({.id = {"shard-0"},
                                       .dram_bytes = 4 * kMiB,
                                       .nvme_bytes = 12 * kMiB,
                                       .nvme_folder = folder,
                                       .nvme_cipher = DiskCipher::kNone,
                                       .nvme_keep = true});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    watched_.clear();
  }
  void Rage();

  // What one thread does with its attachment.
  class Worker {
   public:
    Worker(ShardEngine* engine, uint32_t seed) : engine_(engine), random_(seed) { Attach(); }

    void Run() {
      for (int i = 0; i < kOperations; ++i) {
        switch (random_() % 16) {
          case 0:
            engine_->Remove(me_, handles_[0], {{Pick(0).front()}}).IgnoreError();
            break;
          case 1:
            engine_->Detach(me_);
            Attach();
            break;
          case 2:
            engine_->EvictToWatermark();
            break;
          case 3:
            engine_->Tick();
            EXPECT_TRUE(engine_->KeepAlive(me_).ok());
            break;
          case 4:
            Abandon();
            break;
          case 5:
            Ask();
            break;
          default:
            (random_() % 2 == 0 ? Store() : Read());
            break;
        }
      }
      engine_->Detach(me_);
    }
    uint64_t blocks_read() const { return blocks_read_; }
    uint64_t blocks_stored() const { return blocks_stored_; }

   private:
    static CacheSpec Spec(size_t spec) { return spec == 0 ? SmallSpec(64, 16) : SmallSpec(64, 64); }

    void Attach() {
      me_ = engine_->Attach(Tenant{"default"}, "storm").value();
      handles_.clear();
      for (size_t i = 0; i < 2; ++i) {
        handles_.push_back(engine_->OpenSpec(me_, Spec(i), std::nullopt).value().handle);
      }
    }
    std::vector<BlockKey> Pick(size_t spec) {
      return ChainNamed(absl::StrCat("s", spec, "c", random_() % 16), 1 + random_() % 10);
    }
    void Store() {
      const size_t spec = random_() % 2;
      const std::vector<BlockKey> keys = Pick(spec);
      const auto reserved = engine_->Reserve(me_, {.spec = handles_[spec], .keys = keys});
      if (!reserved.ok()) {
        EXPECT_EQ(RefusalReason(reserved.status()), "NO_SPACE") << reserved.status();
        return;
      }
      std::vector<Checksum128> checksums;
      for (uint32_t i = 0; i < keys.size(); ++i) {
        if (reserved->outcomes[i] != ReserveOutcome::kGranted) continue;
        const auto slot = engine_->OpenWrite(me_, reserved->reservation, i);
        ASSERT_TRUE(slot.ok()) << slot.status();
        PutContent(*engine_, *slot, keys[i], kContentSeed);
        ASSERT_TRUE(engine_->Written(me_, reserved->reservation, i, slot->bytes.size()).ok());
        checksums.push_back(ContentChecksum(keys[i], kContentSeed, Spec(spec)));
      }
      if (checksums.empty()) return;
      const auto committed =
          engine_->Commit(me_, {.reservation = reserved->reservation, .checksums = checksums});
      // Another thread may have removed the block that the run hangs from.
      if (!committed.ok()) {
        EXPECT_EQ(RefusalReason(committed.status()), "PARENT_MISSING") << committed.status();
      }
      if (committed.ok()) blocks_stored_ += committed->committed;
    }
    void Abandon() {
      engine_->Reserve(me_, {.spec = handles_[1], .keys = Pick(1), .ttl = absl::Milliseconds(1)})
          .IgnoreError();
    }
    void Read() {
      const size_t spec = random_() % 2;
      const std::vector<BlockKey> keys = Pick(spec);
      const auto acquired = engine_->Acquire(me_, {.spec = handles_[spec], .keys = keys});
      ASSERT_TRUE(acquired.ok()) << acquired.status();
      if (!acquired->lease) return;
      const auto opened = engine_->OpenRead(me_, acquired->lease, 0, 0);
      ASSERT_TRUE(opened.ok()) << opened.status();
      ASSERT_EQ(opened->size(), acquired->run_blocks);
      if (random_() % 2 == 0) engine_->Release(me_, {{acquired->lease}}).IgnoreError();
      for (size_t i = 0; i < opened->size(); ++i) {
        EXPECT_TRUE(HasContent(keys[i], kContentSeed, BytesOf(*engine_, (*opened)[i])));
      }
      blocks_read_ += opened->size();
    }
    void Ask() {
      const size_t spec = random_() % 2;
      const std::vector<BlockKey> keys = Pick(spec);
      EXPECT_TRUE(engine_->Lookup(me_, handles_[spec], keys).ok());
      EXPECT_TRUE(engine_->Explain(Tenant{"default"}, FingerprintOf(Spec(spec)), keys, {}).ok());
      const absl::Status sound = engine_->CheckInvariants();
      EXPECT_TRUE(sound.ok()) << sound;
    }

    ShardEngine* const engine_;
    std::mt19937 random_;
    AttachmentId me_;
    std::vector<SpecHandle> handles_;
    uint64_t blocks_read_ = 0;
    uint64_t blocks_stored_ = 0;
  };

  // Replays the feed until `done` and nothing is left.
  void Watch(BlockWatch& watch, const std::atomic<bool>& done) {
    while (true) {
      const bool last = done;
      const auto event =
          watch.Next(last ? absl::InfinitePast() : absl::Now() + absl::Milliseconds(20));
      ASSERT_TRUE(event.ok()) << event.status();
      if (!event->has_value() && last) return;
      if (!event->has_value()) continue;
      for (const BlockKey& key : (*event)->keys) {
        const auto id = std::pair((*event)->fingerprint, key);
        if ((*event)->kind == BlockEvent::Kind::kStored) {
          const auto [known, is_new] = watched_.emplace(id, (*event)->tier);
          EXPECT_TRUE(is_new || known->second != (*event)->tier);
          known->second = (*event)->tier;
        }
        if ((*event)->kind == BlockEvent::Kind::kRemoved) {
          EXPECT_EQ(watched_.erase(id), 1u);
        }
      }
    }
  }

  std::unique_ptr<ShardEngine> engine_;
  std::map<std::pair<Fingerprint, BlockKey>, Tier> watched_;
};

void Storm::Rage() {
  auto watch = engine_->Watch();
  ASSERT_TRUE(watch.ok());
  std::atomic<bool> done{false};
  std::atomic<uint64_t> heard{0};
  engine_->OnCommitted([&](CommittedChain chain) { heard += chain.keys.size() - chain.first_new; });
  std::thread watcher([&] { Watch(**watch, done); });
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    workers.push_back(std::make_unique<Worker>(engine_.get(), 100 + i));
  for (auto& worker : workers) threads.emplace_back([&worker] { worker->Run(); });
  for (std::thread& thread : threads) thread.join();
  done = true;
  watcher.join();
  uint64_t read = 0, stored = 0;
  for (auto& worker : workers) {
    read += worker->blocks_read();
    stored += worker->blocks_stored();
  }
  const absl::Status sound = engine_->CheckInvariants();
  EXPECT_TRUE(sound.ok()) << sound;
  const EngineDescription description = engine_->Describe(Tenant{"default"});
  EXPECT_EQ(description.leases + description.reservations + description.attachments, 0u);
  // How many get through is up to the machine; none would make a storm of nothing.
  EXPECT_GT(read, 10u);
  EXPECT_GT(stored, 10u);
  EXPECT_EQ(heard, stored);
}

TEST_F(Storm, EveryByteReadIsTheByteWrittenWhileEverythingHappensAtOnce) {
  Start(/*hbm_bytes=*/0);
  Rage();
}

TEST_F(Storm, SoItIsWhileBlocksMoveFromOneTierToTheNext) {
  Start(/*hbm_bytes=*/4 * kMiB);
  Rage();
  for (const auto& [name, value] : engine_->Describe(Tenant{"default"}).counters) {
    if (name == "demoted_blocks_total") EXPECT_GT(value, 0u);
  }
}

TEST_F(Storm, AndWhatIsOnADiskThenIsThereForTheNextProcess) {
  std::string folder = (std::filesystem::temp_directory_path() / "storm-XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  for (int process = 0; process < 3; ++process) {
    StartKept(folder);
    const KeptDiskUse found = *engine_->Describe(std::nullopt).kept_disk;
    EXPECT_TRUE(found.clean || process == 0);
    EXPECT_EQ(found.restored_blocks > 0, process > 0);
    Rage();
    engine_->Save(absl::Now() + absl::Minutes(1));
    const uint64_t on_disk = engine_->Describe(std::nullopt).tiers.back().blocks;
    engine_ = nullptr;
    StartKept(folder);
    EXPECT_EQ(engine_->Describe(std::nullopt).kept_disk->restored_blocks, on_disk);
    const absl::Status sound = engine_->CheckInvariants();
    EXPECT_TRUE(sound.ok()) << sound;
    engine_ = nullptr;
  }
  std::filesystem::remove_all(folder);
}

TEST_F(Storm, OfManyWritersOfOneChainEachBlockIsCommittedOnce) {
  Start(/*hbm_bytes=*/0);
  const std::vector<BlockKey> keys = ChainNamed("one", 8);
  const CacheSpec spec = SmallSpec(64, 16);
  std::atomic<uint32_t> committed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      const AttachmentId me = engine_->Attach(Tenant{"default"}, "writer").value();
      const SpecHandle handle = engine_->OpenSpec(me, spec, std::nullopt).value().handle;
      while (engine_->Lookup(me, handle, keys)->run_blocks < keys.size()) {
        const auto reserved = engine_->Reserve(me, {.spec = handle, .keys = keys});
        ASSERT_TRUE(reserved.ok()) << reserved.status();
        if (!reserved->reservation) continue;
        std::vector<Checksum128> checksums;
        for (uint32_t i = 0; i < keys.size(); ++i) {
          if (reserved->outcomes[i] != ReserveOutcome::kGranted) continue;
          const auto slot = engine_->OpenWrite(me, reserved->reservation, i);
          ASSERT_TRUE(slot.ok());
          FillContent(keys[i], kContentSeed, slot->bytes);
          ASSERT_TRUE(engine_->Written(me, reserved->reservation, i, slot->bytes.size()).ok());
          checksums.push_back(ChecksumOf(slot->bytes, LayoutOf(spec).layer_bytes));
        }
        const auto done =
            engine_->Commit(me, {.reservation = reserved->reservation, .checksums = checksums});
        ASSERT_TRUE(done.ok()) << done.status();
        committed += done->committed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(committed, keys.size());
}

}  // namespace
}  // namespace reprise::shard
