#include "service/journal/kept_disk.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

constexpr char kBlocksPurpose[] = "reprise blocks";

absl::Status NoFile(const std::string& folder, int error) {
  return Refusal(absl::StatusCode::kInvalidArgument, "NVME_FOLDER",
                 absl::StrCat("no file can be kept in ", folder, " (", std::strerror(error),
                              "): name a folder that this process may write to, --nvme-dir"));
}

// An id as part of a file's name, another one for every id.
std::string NameOf(const ShardId& shard) {
  std::string name;
  for (const char c : shard.name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_') {
      name.push_back(c);
    } else {
      absl::StrAppend(&name, "%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
  }
  return name;
}

// What the file of blocks must have for all of them to lie in it.
uint64_t BytesOf(const FoundJournal& journal) {
  uint64_t extents = 0;
  for (const KeptBlock& block : journal.contents.blocks) {
    extents = std::max<uint64_t>(extents, uint64_t{block.slot.extent} + 1);
  }
  return extents * journal.header.extent_bytes;
}

}  // namespace

class KeptDisk::Files {
 public:
  explicit Files(KeptDiskOptions options)
      : options_(std::move(options)),
        blocks_path_(absl::StrCat(options_.folder, "/reprise-", NameOf(options_.shard), ".blocks")),
        journal_path_(
            absl::StrCat(options_.folder, "/reprise-", NameOf(options_.shard), ".journal")) {}
  ~Files() {
    if (fd_ >= 0) ::close(fd_);  // and unlocks it
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  absl::Status Lock();
  // Reads the journal, or empties the disk. REQUIRES: locked.
  absl::Status Find();
  Found TakeFound() { return std::exchange(found_, Found{}); }

  int blocks_fd() const { return fd_; }
  std::optional<FileCipher::Key> BlocksKey() const;
  const DiskKey* key() const { return options_.key.get(); }
  JournalHeader header() const {
    return {.extent_bytes = options_.extent_bytes,
            .blocks_salt = blocks_salt_,
            .enciphered = key() != nullptr};
  }
  const std::string& journal_path() const { return journal_path_; }

 private:
  // Why `journal` is of no use for this process; empty: it is.
  std::string WhyNot(const FoundJournal& journal, uint64_t blocks_bytes) const;
  absl::Status Empty();

  const KeptDiskOptions options_;
  const std::string blocks_path_, journal_path_;
  int fd_ = -1;
  DiskSalt blocks_salt_{};
  Found found_;
};

absl::Status KeptDisk::Files::Lock() {
  fd_ = ::open(blocks_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) return NoFile(options_.folder, errno);
  struct stat file = {};
  if (::fstat(fd_, &file) != 0) return NoFile(options_.folder, errno);
  if (!S_ISREG(file.st_mode)) return NoFile(options_.folder, EEXIST);
  // One that somebody else made, for whoever they like to read, is not ours.
  if (::fchmod(fd_, S_IRUSR | S_IWUSR) != 0) return NoFile(options_.folder, errno);
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return NoFile(options_.folder, errno);
    return Refusal(absl::StatusCode::kFailedPrecondition, "NVME_IN_USE",
                   absl::StrCat("another process has ", blocks_path_,
                                ": wait until it has ended, or give each shard an --id or a "
                                "--nvme-dir of its own"));
  }
  return absl::OkStatus();
}

absl::Status KeptDisk::Files::Find() {
  RemoveUnpublishedJournal(journal_path_);
  struct stat blocks = {};
  if (::fstat(fd_, &blocks) != 0) return NoFile(options_.folder, errno);
  absl::StatusOr<FoundJournal> journal = ReadJournal(journal_path_, key());
  if (journal.ok()) {
    found_.why_empty = WhyNot(*journal, static_cast<uint64_t>(blocks.st_size));
    if (found_.why_empty.empty()) {
      blocks_salt_ = journal->header.blocks_salt;
      found_.contents = std::move(journal->contents);
      return absl::OkStatus();
    }
  } else if (RefusalReason(journal.status()) == kJournalUseless) {
    found_.why_empty = std::string(journal.status().message());
  } else if (!absl::IsNotFound(journal.status())) {
    return journal.status();  // a mistake, which is to cost nothing
  }
  return Empty();
}

std::string KeptDisk::Files::WhyNot(const FoundJournal& journal, uint64_t blocks_bytes) const {
  if (journal.header.extent_bytes != options_.extent_bytes) {
    return absl::StrCat("the blocks in ", blocks_path_, " lie in extents of ",
                        journal.header.extent_bytes, " bytes, and this process has them of ",
                        options_.extent_bytes, " (--nvme has another size): the disk starts empty");
  }
  if (const uint64_t needed = BytesOf(journal); blocks_bytes < needed) {
    return absl::StrCat("the file ", blocks_path_, " has ", blocks_bytes,
                        " bytes, and its journal has blocks up to ", needed,
                        ": the disk starts empty");
  }
  return "";
}

// The journal first: no process that ends in between leaves one that tells of blocks that are gone.
absl::Status KeptDisk::Files::Empty() {
  RemoveJournal(journal_path_);
  if (::ftruncate(fd_, 0) != 0) return NoFile(options_.folder, errno);
  if (key() == nullptr) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(blocks_salt_, NewSalt());
  return absl::OkStatus();
}

std::optional<FileCipher::Key> KeptDisk::Files::BlocksKey() const {
  if (key() == nullptr) return std::nullopt;
  std::optional<FileCipher::Key> blocks_key(std::in_place);  // the caller's: no copy stays here
  key()->Derive(blocks_salt_, kBlocksPurpose, *blocks_key);
  return blocks_key;
}

KeptDisk::KeptDisk(std::unique_ptr<Files> files) : files_(std::move(files)) {}

KeptDisk::~KeptDisk() = default;

absl::StatusOr<std::unique_ptr<KeptDisk>> KeptDisk::Open(KeptDiskOptions options) {
  auto files = std::make_unique<Files>(std::move(options));
  REPRISE_RETURN_IF_ERROR(files->Lock());
  REPRISE_RETURN_IF_ERROR(files->Find());
  return std::unique_ptr<KeptDisk>(new KeptDisk(std::move(files)));
}

KeptDisk::Found KeptDisk::TakeFound() {
  return files_->TakeFound();
}

int KeptDisk::blocks_fd() const {
  return files_->blocks_fd();
}

std::optional<FileCipher::Key> KeptDisk::BlocksKey() const {
  return files_->BlocksKey();
}

absl::StatusOr<std::unique_ptr<JournalWriter>> KeptDisk::NewJournal() const {
  return JournalWriter::Create(files_->journal_path(), files_->header(), files_->key());
}

void KeptDisk::Forget() {
  RemoveJournal(files_->journal_path());
}

}  // namespace reprise::shard
