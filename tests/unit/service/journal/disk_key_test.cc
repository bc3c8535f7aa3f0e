#include "service/journal/disk_key.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "tests/unit/service/journal/kept_samples.h"

namespace reprise::shard {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes Counting(size_t bytes, uint8_t first) {
  Bytes counting(bytes);
  for (size_t i = 0; i < bytes; ++i) counting[i] = static_cast<uint8_t>(first + i);
  return counting;
}

DiskSalt SaltFrom(uint8_t first) {
  DiskSalt salt;
  const Bytes bytes = Counting(salt.size(), first);
  std::copy(bytes.begin(), bytes.end(), salt.begin());
  return salt;
}

std::string Derived(const DiskKey& key, const DiskSalt& salt, absl::string_view purpose,
                    size_t bytes) {
  std::string derived(bytes, '\0');
  key.Derive(salt, purpose, {reinterpret_cast<uint8_t*>(derived.data()), bytes});
  return absl::BytesToHexString(derived);
}

// By Python's hmac, after RFC 5869, whose first example that program gets right.
TEST(DiskKeyTest, IsHkdfWithSha256) {
  const auto key = *DiskKey::Of(Counting(40, 0));
  EXPECT_EQ(Derived(*key, SaltFrom(100), "reprise blocks", 64),
            "0b3d33b62e3830ff4a12d44ff143818c15c2b6ec0da43350657c7d6d65862ad6"
            "6788305548f503302655ec2e7c8651d69650e33a0bd291c09d8fc441c6c2a0a6");
  EXPECT_EQ(Derived(*key, SaltFrom(100), "", 32),
            "0f6a395214da63dd12382a30db3e88c578aa8f37e54abf3df08b3c33fb0b7240");
}

TEST(DiskKeyTest, AnotherSecretSaltOrPurposeIsAnotherKey) {
  const auto key = *DiskKey::Of(Counting(32, 0));
  const auto other = *DiskKey::Of(Counting(32, 1));
  const auto longer = *DiskKey::Of(Counting(33, 0));
  const std::set<std::string> keys = {
      Derived(*key, SaltFrom(0), "journal", 32), Derived(*other, SaltFrom(0), "journal", 32),
      Derived(*longer, SaltFrom(0), "journal", 32), Derived(*key, SaltFrom(1), "journal", 32),
      Derived(*key, SaltFrom(0), "blocks", 32)};
  EXPECT_EQ(keys.size(), 5);
  EXPECT_EQ(keys.count(Derived(*key, SaltFrom(0), "journal", 32)), 1);
}

TEST(DiskKeyTest, AFileIsTakenAsItIs) {
  const TestFolder folder;
  std::string secret(limits::kDiskKeyBytesMin, '\0');
  secret.back() = '\n';
  WriteBytes(folder.File("key"), secret);
  const auto read = DiskKey::Read(folder.File("key"));
  ASSERT_TRUE(read.ok()) << read.status();
  const auto of = *DiskKey::Of(Bytes(secret.begin(), secret.end()));
  EXPECT_EQ(Derived(**read, SaltFrom(0), "x", 32), Derived(*of, SaltFrom(0), "x", 32));
}

TEST(DiskKeyTest, OtherLengthsAreRefused) {
  const TestFolder folder;
  for (const size_t bytes :
       {size_t{0}, limits::kDiskKeyBytesMin - 1, limits::kDiskKeyBytesMin, limits::kDiskKeyBytesMax,
        limits::kDiskKeyBytesMax + 1, 10 * limits::kDiskKeyBytesMax}) {
    SCOPED_TRACE(bytes);
    const bool right = bytes >= limits::kDiskKeyBytesMin && bytes <= limits::kDiskKeyBytesMax;
    WriteBytes(folder.File("key"), std::string(bytes, 'k'));
    const auto read = DiskKey::Read(folder.File("key"));
    const auto of = DiskKey::Of(Bytes(bytes, 'k'));
    EXPECT_EQ(read.ok(), right);
    EXPECT_EQ(of.ok(), right);
    if (right) continue;
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RefusalReason(read.status()), "NVME_KEY");
    EXPECT_NE(read.status().message().find(folder.File("key")), std::string::npos);
    EXPECT_EQ(RefusalReason(of.status()), "NVME_KEY");
  }
}

TEST(DiskKeyTest, AFileThatCannotBeReadIsRefusedAndNamed) {
  const TestFolder folder;
  for (const std::string& path : {folder.File("none"), folder.path()}) {
    const auto read = DiskKey::Read(path);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(RefusalReason(read.status()), "NVME_KEY");
    EXPECT_NE(read.status().message().find(path), std::string::npos);
  }
}

TEST(DiskKeyTest, NoTwoSaltsAreTheSame) {
  EXPECT_NE(*NewSalt(), *NewSalt());
}

}  // namespace
}  // namespace reprise::shard
