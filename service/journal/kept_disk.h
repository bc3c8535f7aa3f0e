// A shard's two files in a folder: the blocks, and the journal that says what they are. Whoever has
// them open has them alone.
//
// What an earlier process left and nobody can use any more is no reason not to start: it is a
// cache. The disk is empty then, and says why. What another key would open is: a mistake is not to
// cost what there is.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/types/ids.h"
#include "service/journal/disk_key.h"
#include "service/journal/journal.h"
#include "service/journal/kept_records.h"
#include "service/pool/file_cipher.h"

namespace reprise::shard {

struct KeptDiskOptions {
  std::string folder;
  ShardId shard;  // names the files; what is no letter, digit, '.', '-' or '_' is written %XX
  uint64_t extent_bytes = 0;     // of the pool; blocks under another one are not taken over
  std::unique_ptr<DiskKey> key;  // nullptr: nothing is enciphered
};

class KeptDisk {
 public:
  // Makes the files where there are none. NVME_IN_USE (FAILED_PRECONDITION) while another process
  // has them, NVME_FOLDER (INVALID_ARGUMENT) where none can be made or emptied, NVME_KEY
  // (FAILED_PRECONDITION) where the key is not the one that they were written under. When nothing
  // is taken over the journal is gone before the blocks are.
  static absl::StatusOr<std::unique_ptr<KeptDisk>> Open(KeptDiskOptions options);
  ~KeptDisk();
  KeptDisk(const KeptDisk&) = delete;
  KeptDisk& operator=(const KeptDisk&) = delete;

  // Once: what the last process left. `why_empty` says why it is nothing, where there was a
  // journal.
  struct Found {
    KeptContents contents;
    std::string why_empty;
  };
  Found TakeFound();

  // Of the file of blocks, locked: it is this object's, which outlives its use. Empty (0 bytes)
  // when nothing was found.
  int blocks_fd() const;
  // nullopt: nothing is enciphered.
  std::optional<FileCipher::Key> BlocksKey() const;

  // A new journal, which takes the old one's place with Publish.
  absl::StatusOr<std::unique_ptr<JournalWriter>> NewJournal() const;
  // What is stored may no longer be what the journal says: the next process is to find nothing.
  void Forget();

 private:
  class Files;
  explicit KeptDisk(std::unique_ptr<Files> files);
  const std::unique_ptr<Files> files_;
};

}  // namespace reprise::shard
