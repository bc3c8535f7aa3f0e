// Which extents are pinned, for how long, and what happens where a driver refuses.
#include "cluster/lanes/view/pinned_extents.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/fake_gpu/fake_gpu.h"

namespace reprise::lanes::view {
namespace {

using reprise::testing::ConfigureFakeGpu;
using reprise::testing::UseOfFakeGpu;

constexpr uint64_t kBytes = 1 << 20;
constexpr PinnedExtents::Key kExtent{.extent = 7};
constexpr PinnedExtents::Key kOther{.extent = 8};
constexpr PinnedExtents::Key kWritable{.extent = 7, .writable = true};

// A shard's extent: a sealed file, all of whose pages are there.
class File {
 public:
  File() : fd_(::memfd_create("extent", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    EXPECT_EQ(::fallocate(fd_, 0, 0, kBytes), 0);
    EXPECT_EQ(::fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    memory_ =
        static_cast<uint8_t*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  ~File() {
    ::munmap(memory_, kBytes);
    ::close(fd_);
  }
  Descriptor Copy() const { return Descriptor(::dup(fd_)); }
  Descriptor ReadOnly() const {
    const std::string path = "/proc/self/fd/" + std::to_string(fd_);
    return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  uint8_t* memory() const { return memory_; }
  // What a shard does before the extent gets its next owner.
  void GiveUpPages() {
    EXPECT_EQ(::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kBytes), 0);
  }

 private:
  const int fd_;
  uint8_t* memory_;
};

template <typename Done>
bool Eventually(const Done& done) {
  for (const absl::Time end = absl::Now() + absl::Seconds(60); absl::Now() < end;) {
    if (done()) return true;
    std::this_thread::yield();
  }
  return false;
}

Extent Answer() {
  Extent extent;
  extent.extent_bytes = kBytes;
  return extent;
}

class PinnedExtentsTest : public ::testing::Test {
 protected:
  PinnedExtentsTest() { ConfigureFakeGpu({}); }
  ~PinnedExtentsTest() override {
    extents_.reset();
    EXPECT_EQ(UseOfFakeGpu().alive(), 0u) << "something is still pinned";
  }
  void Pin() {
    ASSERT_TRUE(extents_->Wanted(kExtent));
    extents_->Pin(kExtent, 0, Answer(), file_.Copy());
    ASSERT_TRUE(Eventually([&] { return extents_->Find(kExtent) != nullptr; }));
  }

  File file_;
  std::unique_ptr<PinnedExtents> extents_ = std::make_unique<PinnedExtents>();
};

TEST_F(PinnedExtentsTest, AnExtentIsAskedForOnceAndThenThere) {
  EXPECT_EQ(extents_->Find(kExtent), nullptr);
  Pin();
  EXPECT_FALSE(extents_->Wanted(kExtent));
  const auto mapping = extents_->Find(kExtent);
  EXPECT_EQ(mapping->size_bytes(), kBytes);
  std::memset(file_.memory(), 0x5a, kBytes);
  EXPECT_EQ(std::memcmp(mapping->data(), file_.memory(), kBytes), 0) << "it is other memory";
  EXPECT_EQ(UseOfFakeGpu().pinned, 1u);
}

TEST_F(PinnedExtentsTest, AReadersFileIsPinnedForReadingAndIsNoWriters) {
  ASSERT_TRUE(extents_->Wanted(kExtent));
  extents_->Pin(kExtent, 0, Answer(), file_.ReadOnly());
  ASSERT_TRUE(Eventually([&] { return extents_->Find(kExtent) != nullptr; }));
  EXPECT_EQ(extents_->Find(kWritable), nullptr);
  EXPECT_TRUE(extents_->Wanted(kWritable));
}

TEST_F(PinnedExtentsTest, AWritersPinIsAReadersToo) {
  ASSERT_TRUE(extents_->Wanted(kWritable));
  extents_->Pin(kWritable, 0, Answer(), file_.Copy());
  ASSERT_TRUE(Eventually([&] { return extents_->Find(kWritable) != nullptr; }));
  EXPECT_EQ(extents_->Find(kExtent), extents_->Find(kWritable));
  extents_->Find(kWritable)->data()[5] = 0x77;
  EXPECT_EQ(file_.memory()[5], 0x77);
}

TEST_F(PinnedExtentsTest, WhatOneCallerAskedForNoOtherAsksForMeanwhile) {
  EXPECT_TRUE(extents_->Wanted(kExtent));
  EXPECT_FALSE(extents_->Wanted(kExtent));
  EXPECT_TRUE(extents_->Wanted(kOther));
}

TEST_F(PinnedExtentsTest, PagesThatAShardGaveUpAreLetGo) {
  Pin();
  const auto in_use = extents_->Find(kExtent);
  file_.GiveUpPages();
  ASSERT_TRUE(Eventually([&] { return extents_->Find(kExtent) == nullptr; }));
  EXPECT_EQ(UseOfFakeGpu().pinned, 1u) << "a call that uses it has it until it ends";
}

TEST_F(PinnedExtentsTest, PagesThatNobodyUsesAreUnpinnedByItself) {
  Pin();
  file_.GiveUpPages();
  EXPECT_TRUE(Eventually([&] { return UseOfFakeGpu().pinned == 0; }));
}

TEST_F(PinnedExtentsTest, WhatIsRefusedIsNotTriedAgainAtOnce) {
  ASSERT_TRUE(extents_->Wanted({1}));
  extents_->Pin({1}, /*device=*/3, Answer(), file_.Copy());  // there is no such device
  ASSERT_TRUE(extents_->Wanted({2}));
  extents_->Pin({2}, 0, absl::UnavailableError("the shard is gone"), Descriptor());
  Extent refused;
  refused.status = absl::NotFoundError("the attachment is over");
  ASSERT_TRUE(extents_->Wanted({3}));
  extents_->Pin({3}, 0, refused, file_.Copy());
  Pin();  // after all of these
  for (uint64_t extent = 1; extent <= 3; ++extent) {
    EXPECT_EQ(extents_->Find({extent}), nullptr);
    EXPECT_FALSE(extents_->Wanted({extent}));
  }
}

// Blocks that lie together are copied together, and no copy may leave what was pinned as one.
TEST_F(PinnedExtentsTest, NoTwoMappingsLieNextToEachOther) {
  std::vector<std::shared_ptr<const Mapping>> mappings;
  for (int i = 0; i < 16; ++i) {
    mappings.push_back(*Mapping::Create(file_.Copy(), kBytes, /*writable=*/i % 2 == 0));
  }
  for (const auto& one : mappings) {
    for (const auto& other : mappings) EXPECT_NE(one->data() + kBytes, other->data());
  }
}

TEST_F(PinnedExtentsTest, AFileThatIsNotSafeToMapIsNotPinned) {
  const int unsealed = ::memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(unsealed, kBytes), 0);
  ASSERT_TRUE(extents_->Wanted(kExtent));
  extents_->Pin(kExtent, 0, Answer(), Descriptor(unsealed));
  // The thread works off what it is told in order.
  ASSERT_TRUE(extents_->Wanted(kOther));
  extents_->Pin(kOther, 0, Answer(), file_.Copy());
  ASSERT_TRUE(Eventually([&] { return extents_->Find(kOther) != nullptr; }));
  EXPECT_EQ(extents_->Find(kExtent), nullptr);
  EXPECT_FALSE(extents_->Wanted(kExtent));
}

}  // namespace
}  // namespace reprise::lanes::view
