#include "service/journal/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/journal/journal_seal.h"
#include "service/journal/little_endian.h"
#include "tests/support/file_size_limit.h"
#include "tests/unit/service/journal/kept_samples.h"

namespace reprise::shard {
namespace {

constexpr uint64_t kExtentBytes = 1 << 20;
// In the file: a magic number, the version, whether it is enciphered, extent_bytes, two salts; and
// an empty frame.
constexpr size_t kHeaderBytes = 8 + 4 + 4 + 8 + 32 + 32;
constexpr size_t kFrameBytesBeside = 4 + 16;
constexpr size_t kBeginBytes = kHeaderBytes + kFrameBytesBeside;

JournalHeader HeaderOf(bool enciphered) {
  JournalHeader header{.extent_bytes = kExtentBytes, .enciphered = enciphered};
  if (enciphered) header.blocks_salt.fill(0xb5);
  return header;
}

// Both with a key and without.
class JournalTest : public ::testing::TestWithParam<bool> {
 protected:
  JournalTest() : path_(folder_.File("journal")), key_(GetParam() ? KeyOf(1) : nullptr) {}

  std::unique_ptr<JournalWriter> Begin(const std::string& path) {
    auto writer = JournalWriter::Create(path, HeaderOf(GetParam()), key_.get());
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }
  // Where each batch ends.
  std::vector<uint64_t> Write(const std::string& path, const std::vector<KeptBatch>& batches) {
    const auto writer = Begin(path);
    std::vector<uint64_t> ends;
    for (const KeptBatch& batch : batches) {
      EXPECT_TRUE(writer->Append(batch).ok());
      ends.push_back(writer->bytes());
    }
    EXPECT_TRUE(writer->Publish().ok());
    EXPECT_EQ(writer->bytes(), ReadBytes(path).size());
    return ends;
  }
  absl::StatusOr<FoundJournal> Read() { return ReadJournal(path_, key_.get()); }

  const TestFolder folder_;
  const std::string path_;
  const std::unique_ptr<DiskKey> key_;
};

INSTANTIATE_TEST_SUITE_P(Modes, JournalTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Enciphered" : "Clear"; });

TEST_P(JournalTest, WhatWasWrittenIsRead) {
  Write(path_, SampleBatches());
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->header, HeaderOf(GetParam()));
  ExpectSame(found->contents, ComeTo(SampleBatches()));
  EXPECT_TRUE(found->contents.closed);
  EXPECT_EQ(found->contents.torn_bytes, 0);
}

TEST_P(JournalTest, OneWithoutRecordsIsReadToo) {
  Write(path_, {});
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->header, HeaderOf(GetParam()));
  ExpectSame(found->contents, KeptContents{});
}

TEST_P(JournalTest, ItGoesOnAfterItWasPublished) {
  const auto writer = Begin(path_);
  const std::vector<KeptBatch> batches = SampleBatches();
  ASSERT_TRUE(writer->Append(batches[0]).ok());
  ASSERT_TRUE(writer->Publish().ok());
  ExpectSame(Read()->contents, ComeTo(std::span(batches).first(1)));
  ASSERT_TRUE(writer->Append(batches[1]).ok());
  ASSERT_TRUE(writer->Sync().ok());
  ExpectSame(Read()->contents, ComeTo(std::span(batches).first(2)));
}

TEST_P(JournalTest, UntilPublishTheOldOneStays) {
  const std::vector<KeptBatch> batches = SampleBatches();
  Write(path_, {batches[0]});
  {
    const auto writer = Begin(path_);
    ASSERT_TRUE(writer->Append(batches[0]).ok());
    ASSERT_TRUE(writer->Append(batches[1]).ok());
    ASSERT_TRUE(writer->Sync().ok());
    ExpectSame(Read()->contents, ComeTo(std::span(batches).first(1)));
    EXPECT_EQ(folder_.Names().size(), 2);
  }
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"journal"});
  ExpectSame(Read()->contents, ComeTo(std::span(batches).first(1)));
  Write(path_, {batches[0], batches[1]});
  ExpectSame(Read()->contents, ComeTo(std::span(batches).first(2)));
}

TEST_P(JournalTest, ABatchThatIsLargeIsSeveralFrames) {
  KeptBatch batch;
  batch.spaces = {SampleSpace(1)};
  for (uint32_t i = 0; i < 10'000; ++i) batch.blocks.push_back(SampleBlock(1, {0, i}, i));
  batch.closed = true;
  Write(path_, {batch});
  EXPECT_GT(ReadBytes(path_).size(), limits::kJournalMessageBytes + 2 * kFrameBytesBeside);
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->contents.blocks == batch.blocks);
  EXPECT_TRUE(found->contents.closed);
}

TEST_P(JournalTest, ItIsThisUsersAndNoChildGetsIt) {
  const auto writer = Begin(path_);
  struct stat file;
  ASSERT_EQ(::stat(folder_.File("journal.new").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600);
  int inherited = 0;
  for (int fd = 0; fd < 256; ++fd) {
    struct stat open;
    if (::fstat(fd, &open) == 0 && open.st_ino == file.st_ino && open.st_dev == file.st_dev) {
      EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
      ++inherited;
    }
  }
  EXPECT_EQ(inherited, 1);
}

// Whole batches, however many bytes reached the disk.
TEST_P(JournalTest, CutAnywhereItHasTheBatchesBefore) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const std::vector<uint64_t> ends = Write(path_, batches);
  const std::string whole = ReadBytes(path_);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    SCOPED_TRACE(bytes);
    WriteBytes(path_, whole.substr(0, bytes));
    const auto found = Read();
    if (bytes < kBeginBytes) {
      ASSERT_EQ(found.status().code(), absl::StatusCode::kFailedPrecondition);
      ASSERT_TRUE(absl::StrContains(found.status().message(), path_));
      continue;
    }
    ASSERT_TRUE(found.ok()) << found.status();
    const size_t count =
        std::count_if(ends.begin(), ends.end(), [&](uint64_t end) { return end <= bytes; });
    ExpectSame(found->contents, ComeTo(std::span(batches).first(count)));
    EXPECT_EQ(found->contents.torn_bytes, bytes - (count == 0 ? kBeginBytes : ends[count - 1]));
    if (HasFailure()) return;
  }
}

TEST_P(JournalTest, AFlippedBitAnywhereLeavesTheBatchesBefore) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const std::vector<uint64_t> ends = Write(path_, batches);
  const std::string whole = ReadBytes(path_);
  for (size_t at = 0; at < whole.size(); ++at) {
    SCOPED_TRACE(at);
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
    WriteBytes(path_, flipped);
    const auto found = Read();
    if (at < kBeginBytes) {
      ASSERT_EQ(found.status().code(), absl::StatusCode::kFailedPrecondition);
      ASSERT_TRUE(absl::StrContains(found.status().message(), path_));
      continue;
    }
    ASSERT_TRUE(found.ok()) << found.status();
    const size_t count =
        std::count_if(ends.begin(), ends.end(), [&](uint64_t end) { return end <= at; });
    ExpectSame(found->contents, ComeTo(std::span(batches).first(count)));
    EXPECT_FALSE(found->contents.closed);
    EXPECT_GT(found->contents.torn_bytes, 0);
    if (HasFailure()) return;
  }
}

TEST_P(JournalTest, BytesAfterTheEndAreNoCleanEnd) {
  Write(path_, SampleBatches());
  WriteBytes(path_, ReadBytes(path_) + "x");
  const auto found = Read();
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->contents.closed);
  EXPECT_EQ(found->contents.torn_bytes, 1);
}

TEST_P(JournalTest, ALengthBeyondTheFilesEndIsDamage) {
  Write(path_, {});
  for (const std::string& length : {std::string("\xff\xff\xff\xff"), std::string("\0\0\0\x01", 4),
                                    std::string("\x55\0\0\0", 4)}) {
    WriteBytes(path_, ReadBytes(path_).substr(0, kBeginBytes) + length + std::string(100, 'x'));
    const auto found = Read();
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->contents.torn_bytes, 104);
  }
}

// Whatever another version wrote, and sealed.
class ForeignFrames : public JournalTest {
 protected:
  // Frame `number` of the file.
  void Append(uint64_t number, const std::string& message) {
    const std::string bytes = ReadBytes(path_);
    const std::vector<uint8_t> header(bytes.begin(), bytes.begin() + kHeaderBytes);
    DiskSalt salt;
    std::copy(header.end() - salt.size(), header.end(), salt.begin());
    const auto seal = *JournalSeal::Create(key_.get(), salt, header);
    std::vector<uint8_t> frame(4 + message.size() + JournalSeal::kBytes);
    PutLittleEndian(static_cast<uint32_t>(message.size()), frame);
    std::copy(message.begin(), message.end(), frame.begin() + 4);
    seal->Close(number, std::span(frame).subspan(4, message.size()),
                std::span(frame).last<JournalSeal::kBytes>());
    WriteBytes(path_, bytes + std::string(frame.begin(), frame.end()));
  }
  // A field that this version does not know, `bytes` long in all.
  static std::string Unknown(size_t bytes) {
    std::string field = "\x7a";
    for (size_t rest = bytes - 5, i = 0; i < 4; ++i, rest >>= 7) {
      field.push_back(static_cast<char>((rest & 0x7f) | (i < 3 ? 0x80 : 0)));
    }
    return field + std::string(bytes - 5, 'u');
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, ForeignFrames, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Enciphered" : "Clear"; });

TEST_P(ForeignFrames, RecordsThatAreNotKnownArePassedOver) {
  const std::vector<KeptBatch> batches = SampleBatches();
  Write(path_, {batches[0]});
  Append(2, Unknown(100));
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->contents.torn_bytes, 0);
  EXPECT_EQ(found->contents.skipped, 1);
  EXPECT_TRUE(found->contents.blocks == batches[0].blocks);
}

TEST_P(ForeignFrames, WhatIsNoMessageEndsIt) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const std::vector<uint64_t> ends = Write(path_, {batches[0]});
  Append(2, "\x12");
  Append(3, Unknown(100));
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  ExpectSame(found->contents, ComeTo(std::span(batches).first(1)));
  EXPECT_EQ(found->contents.torn_bytes, ReadBytes(path_).size() - ends[0]);
}

TEST_P(ForeignFrames, OneThatIsTooLongIsDamage) {
  for (const size_t more : {size_t{0}, size_t{1}}) {
    Write(path_, {});
    Append(1, Unknown(limits::kJournalFrameBytesMax + more));
    const auto found = Read();
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->contents.torn_bytes == 0, more == 0);
    EXPECT_EQ(found->contents.skipped, 1 - more);
  }
}

TEST_P(JournalTest, FramesOfAnotherJournalUnderTheSameSecretDoNotFit) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const std::vector<uint64_t> ends = Write(path_, batches);
  const std::string one = ReadBytes(path_);
  ASSERT_EQ(Write(path_, batches), ends);
  const std::string other = ReadBytes(path_);
  for (size_t count = 0; count < batches.size(); ++count) {
    const uint64_t end = count == 0 ? kBeginBytes : ends[count - 1];
    WriteBytes(path_, one.substr(0, end) + other.substr(end));
    const auto found = Read();
    ASSERT_TRUE(found.ok()) << found.status();
    ExpectSame(found->contents, ComeTo(std::span(batches).first(count)));
  }
  // Nor all of them after another header.
  WriteBytes(path_, one.substr(0, kHeaderBytes) + other.substr(kHeaderBytes));
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(JournalTest, FramesInAnotherOrderDoNotFit) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const std::vector<uint64_t> ends = Write(path_, batches);
  const std::string whole = ReadBytes(path_);
  const auto frame = [&](size_t number) {
    const uint64_t begin = number == 0 ? kBeginBytes : ends[number - 1];
    return whole.substr(begin, ends[number] - begin);
  };
  const std::string begin = whole.substr(0, kBeginBytes);
  for (const std::string& bytes :
       {begin + frame(0) + frame(0), begin + frame(0) + frame(2) + frame(1),
        begin + frame(0) + frame(4)}) {
    WriteBytes(path_, bytes);
    ExpectSame(Read()->contents, ComeTo(std::span(batches).first(1)));
  }
  WriteBytes(path_, begin + frame(1));
  ExpectSame(Read()->contents, KeptContents{});
}

void ExpectRefused(const absl::Status& status, const std::string& path, const char* why,
                   const char* reason = kJournalUseless) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(RefusalReason(status), reason);
  EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), why)) << status;
}

TEST_P(JournalTest, AnotherKeyIsRefused) {
  for (const std::vector<KeptBatch>& batches : {std::vector<KeptBatch>{}, SampleBatches()}) {
    Write(path_, batches);
    const auto other = KeyOf(2);
    if (GetParam()) {
      ExpectRefused(ReadJournal(path_, other.get()).status(), path_, "under another key",
                    "NVME_KEY");
      ExpectRefused(ReadJournal(path_, nullptr).status(), path_, "there is no key", "NVME_KEY");
    } else {
      ExpectRefused(ReadJournal(path_, other.get()).status(), path_, "is not enciphered",
                    "NVME_KEY");
    }
  }
}

TEST_P(JournalTest, WhatIsNoJournalOfThisFormatIsRefused) {
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kNotFound);
  Write(path_, SampleBatches());
  const std::string whole = ReadBytes(path_);
  const auto changed = [&](size_t at, char byte) {
    std::string bytes = whole;
    bytes[at] = byte;
    WriteBytes(path_, bytes);
    return Read().status();
  };
  ExpectRefused(changed(0, 'r'), path_, "is no journal");
  ExpectRefused(changed(8, 2), path_, "has format 2, and this version reads 1");
  ExpectRefused(changed(12, 7), path_, "in a way (7)");
  WriteBytes(path_, "");
  ExpectRefused(Read().status(), path_, "0 bytes");
  WriteBytes(path_, whole.substr(0, kHeaderBytes));
  ExpectRefused(Read().status(), path_, "at its beginning");
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  ExpectRefused(Read().status(), path_, "is no file");
}

TEST_P(JournalTest, AnEncipheredOneGivesNothingAway) {
  std::vector<KeptBatch> batches = SampleBatches();
  batches[0].blocks[0].token_ids.assign(16, 123'456);
  Write(path_, batches);
  const std::string bytes = ReadBytes(path_);
  const auto text = [](const auto& digest) {
    return std::string(digest.bytes.begin(), digest.bytes.end());
  };
  const KeptBlock& block = batches[0].blocks[0];
  const std::string token = "\xc0\xc4\x07";  // as a varint
  for (const std::string& canary :
       {std::string(kTenantCanary), std::string(kSessionCanary), std::string(kClaimCanary),
        std::string(kModelCanary), text(block.key), text(*block.parent), text(block.checksum),
        text(batches[0].spaces[0].fingerprint), token + token}) {
    EXPECT_EQ(absl::StrContains(bytes, canary), !GetParam()) << ::testing::PrintToString(canary);
  }
}

TEST_P(JournalTest, NoTwoFilesAreEncipheredAlike) {
  Write(path_, SampleBatches());
  const std::string one = ReadBytes(path_);
  Write(path_, SampleBatches());
  const std::string other = ReadBytes(path_);
  ASSERT_EQ(one.size(), other.size());
  size_t equal = 0;
  for (size_t at = kBeginBytes; at < one.size(); ++at) equal += one[at] == other[at];
  const size_t all = one.size() - kBeginBytes;
  if (GetParam()) {
    EXPECT_LT(equal, all / 8);  // lengths, and what chance makes equal
  } else {
    EXPECT_GT(equal, all / 2);
  }
}

TEST_P(JournalTest, AFolderThatIsNotThereIsNamed) {
  const auto writer =
      JournalWriter::Create(folder_.File("none/journal"), HeaderOf(GetParam()), key_.get());
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(absl::StrContains(writer.status().message(), "No such file")) << writer.status();
}

// What came after a frame that is cut short nobody would read; and one number would have been used
// for two frames.
TEST_P(JournalTest, AfterARefusedWriteItIsOver) {
  const std::vector<KeptBatch> batches = SampleBatches();
  const auto writer = Begin(path_);
  ASSERT_TRUE(writer->Append(batches[0]).ok());
  ASSERT_TRUE(writer->Publish().ok());
  {
    const reprise::testing::FileSizeLimit limit(writer->bytes() + 50);
    const absl::Status status = writer->Append(batches[2]);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(absl::StrContains(status.message(), "File too large")) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
  }
  EXPECT_EQ(writer->Append(batches[1]).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(writer->Sync().code(), absl::StatusCode::kInternal);
  const auto found = Read();
  ASSERT_TRUE(found.ok()) << found.status();
  ExpectSame(found->contents, ComeTo(std::span(batches).first(1)));
  EXPECT_EQ(found->contents.torn_bytes, 50);
}

TEST_P(JournalTest, OneThatDidNotFitIsNotPublished) {
  const std::vector<KeptBatch> batches = SampleBatches();
  Write(path_, {batches[0]});
  {
    const auto writer = Begin(path_);
    {
      const reprise::testing::FileSizeLimit limit(writer->bytes());
      EXPECT_EQ(writer->Append(batches[0]).code(), absl::StatusCode::kInternal);
    }
    EXPECT_EQ(writer->Publish().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(folder_.Names(), std::vector<std::string>{"journal"});
  ExpectSame(Read()->contents, ComeTo(std::span(batches).first(1)));
}

}  // namespace
}  // namespace reprise::shard
