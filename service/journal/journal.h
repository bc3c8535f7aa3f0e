// The journal of a disk that is kept over restarts: one file of batches, each whole or not there.
//
// A file begins with a header in the clear: a magic number, the format's version, whether what
// follows is enciphered, the sizes that slots depend on, and two salts. Batches follow as frames,
// one reprise.disk.v1.Batch each: its length, the message, and a seal (journal_seal.h) over both,
// the frame's number and the header. The first frame is empty: it seals the header. Readers stop at
// the first frame that is cut short or whose seal is wrong, and take what came before. Fields that
// are not known are passed over, as protobuf does.
//
// No file is ever appended to by two processes: each start writes a new one, which takes the old
// one's name when it says as much. Nor is it after a write that was refused: no frame's number is
// used twice.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "service/journal/disk_key.h"
#include "service/journal/journal_seal.h"
#include "service/journal/kept_records.h"

namespace reprise::shard {

struct JournalHeader {
  uint64_t extent_bytes = 0;  // of the pool whose slots it names
  DiskSalt blocks_salt{};     // the blocks' key is made with it; zeroes when nothing is enciphered
  bool enciphered = false;
  friend bool operator==(const JournalHeader&, const JournalHeader&) = default;
};

struct FoundJournal {
  JournalHeader header;
  KeptContents contents;
};

// The reason of a refusal: this version can make nothing of the file, whatever it is given.
inline constexpr char kJournalUseless[] = "NVME_JOURNAL";

// `key`: nullptr for one that is not enciphered. NOT_FOUND when there is no such file;
// FAILED_PRECONDITION when there is one that cannot be taken over: kJournalUseless where it has
// another format, or is damaged in its header or, without a key, in its first frame; NVME_KEY where
// it is enciphered or not unlike `key`, or under another one, or this process may not read it;
// where OpenSSL has no AES-256-GCM too. RESOURCE_EXHAUSTED when there is no memory for the key.
absl::StatusOr<FoundJournal> ReadJournal(const std::string& path, const DiskKey* key);

class JournalWriter {
 public:
  // Begins a file beside `path`, which stays as it is until Publish; one at a time. INTERNAL naming
  // what the disk refused, so also below, and then from every later call; FAILED_PRECONDITION where
  // OpenSSL has no AES-256-GCM or no randomness. REQUIRES: there is a `key` just when
  // header.enciphered; it outlives this call only.
  static absl::StatusOr<std::unique_ptr<JournalWriter>> Create(const std::string& path,
                                                               const JournalHeader& header,
                                                               const DiskKey* key);
  ~JournalWriter();  // an unpublished file is removed
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  // In one frame, or more where it is large; a crash in between leaves those before. In none where
  // it says nothing. REQUIRES: no text, list or message in it is longer than limits.h allows.
  absl::Status Append(const KeptBatch& batch);
  // Until all that was appended is on the disk.
  absl::Status Sync();
  // Syncs, and takes the place of what is at `path`. REQUIRES: it did not yet.
  absl::Status Publish();

  uint64_t bytes() const { return bytes_; }  // of the file so far

 private:
  JournalWriter(std::string path, int fd);
  absl::Status Begin(const JournalHeader& header, const DiskKey* key);
  absl::Status Frame(absl::string_view message);
  absl::Status Write(std::span<const uint8_t> bytes);
  // From now on every call fails.
  absl::Status Failed(absl::string_view doing, int error);

  const std::string path_;
  const std::string name_;  // of the file until Publish
  const int fd_;
  std::unique_ptr<JournalSeal> seal_;
  std::vector<uint8_t> frame_;  // being written
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
  bool published_ = false;
  absl::Status failed_;
};

// The next ReadJournal finds none; whoever writes it may go on for nobody.
void RemoveJournal(const std::string& path);
// What an earlier process began for `path` and did not publish.
void RemoveUnpublishedJournal(const std::string& path);

}  // namespace reprise::shard
