#include "service/journal/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/journal/kept_fold.h"
#include "service/journal/little_endian.h"
#include "service/journal/record_codec.h"

namespace reprise::shard {
namespace {

using Length = uint32_t;  // of a frame's message
constexpr size_t kFrameBytesBeside = sizeof(Length) + JournalSeal::kBytes;

constexpr std::array<uint8_t, 8> kMagic = {'R', 'P', 'R', 'S', 'J', 'R', 'N', 'L'};
constexpr uint32_t kVersion = 1;
enum class Sealed : uint32_t { kChecksum = 0, kAes256Gcm = 1 };

// Numbers little-endian.
constexpr size_t kHeaderBytes = sizeof(kMagic)       // with the version first in every format
                                + sizeof(kVersion)   //
                                + sizeof(Sealed)     //
                                + sizeof(uint64_t)   // extent_bytes
                                + sizeof(DiskSalt)   // blocks_salt
                                + sizeof(DiskSalt);  // of the journal's own key
using HeaderBytes = std::array<uint8_t, kHeaderBytes>;

HeaderBytes ToBytes(const JournalHeader& header, const DiskSalt& salt) {
  HeaderBytes bytes;
  std::span<uint8_t> rest(bytes);
  const auto number = [&](auto value) {
    PutLittleEndian(value, rest);
    rest = rest.subspan(sizeof(value));
  };
  const auto copy = [&](std::span<const uint8_t> from) {
    std::copy(from.begin(), from.end(), rest.begin());
    rest = rest.subspan(from.size());
  };
  copy(kMagic);
  number(kVersion);
  number(static_cast<uint32_t>(header.enciphered ? Sealed::kAes256Gcm : Sealed::kChecksum));
  number(header.extent_bytes);
  copy(header.blocks_salt);
  copy(salt);
  REPRISE_CHECK(rest.empty());
  return bytes;
}

struct ReadHeader {
  JournalHeader header;
  DiskSalt salt;
};

// Of no use to this version, whatever it is given.
absl::Status Useless(const std::string& path, absl::string_view what) {
  return Refusal(absl::StatusCode::kFailedPrecondition, kJournalUseless,
                 absl::StrCat("the journal ", path, " ", what, ": the disk starts empty"));
}

// Of use to who has the right key, or the right to read it.
absl::Status Withheld(const std::string& path, absl::string_view what) {
  return Refusal(
      absl::StatusCode::kFailedPrecondition, "NVME_KEY",
      absl::StrCat("the journal ", path, " ", what, "; or remove it, and the disk starts empty"));
}

// REQUIRES: `bytes` are as many as a header has.
absl::Status Parse(const std::string& path, std::span<const uint8_t> bytes, bool with_key,
                   ReadHeader& to) {
  const auto take = [&](size_t size) {
    const std::span<const uint8_t> part = bytes.first(size);
    bytes = bytes.subspan(size);
    return part;
  };
  const auto bad = [&](const auto&... words) { return Useless(path, absl::StrCat(words...)); };
  const std::span<const uint8_t> magic = take(sizeof(kMagic));
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin())) {
    return bad("is no journal of this program");
  }
  const auto version = GetLittleEndian<uint32_t>(take(sizeof(kVersion)));
  if (version != kVersion) {
    return bad("has format ", version, ", and this version reads ", kVersion);
  }
  const auto sealed = GetLittleEndian<uint32_t>(take(sizeof(Sealed)));
  if (sealed > static_cast<uint32_t>(Sealed::kAes256Gcm)) {
    return bad("is enciphered in a way (", sealed, ") that this version does not know");
  }
  to.header.enciphered = sealed == static_cast<uint32_t>(Sealed::kAes256Gcm);
  if (to.header.enciphered && !with_key) {
    return Withheld(
        path,
        "is enciphered, and there is no key: give --nvme-key the one that it was written under");
  }
  if (!to.header.enciphered && with_key) {
    return Withheld(path,
                    "is not enciphered, and there is a key: it is read with --nvme-cipher none");
  }
  to.header.extent_bytes = GetLittleEndian<uint64_t>(take(sizeof(uint64_t)));
  const auto salt = [&](DiskSalt& into) {
    const std::span<const uint8_t> part = take(into.size());
    std::copy(part.begin(), part.end(), into.begin());
  };
  salt(to.header.blocks_salt);
  salt(to.salt);
  return absl::OkStatus();
}

// Closes what it was given.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// A file from its beginning, in large reads.
class Pieces {
 public:
  Pieces(int fd, uint64_t file_bytes) : fd_(fd), unread_(file_bytes) {}

  // The next so many bytes, until the next call. nullopt when not so many are left, or the disk
  // does not give them: for a reader that is one.
  std::optional<std::span<uint8_t>> Next(size_t bytes) {
    if (bytes > end_ - begin_ && !Fill(bytes)) return std::nullopt;
    const std::span<uint8_t> piece(&buffer_[begin_], bytes);
    begin_ += bytes;
    return piece;
  }

 private:
  bool Fill(size_t bytes) {
    const size_t has = end_ - begin_;
    if (bytes - has > unread_) return false;
    std::copy(buffer_.begin() + static_cast<ptrdiff_t>(begin_),
              buffer_.begin() + static_cast<ptrdiff_t>(end_), buffer_.begin());
    begin_ = 0;
    end_ = has;
    buffer_.resize(std::max<size_t>(
        {bytes, has + std::min<uint64_t>(unread_, limits::kJournalMessageBytes), buffer_.size()}));
    while (end_ < bytes) {
      const size_t room = std::min<uint64_t>(buffer_.size() - end_, unread_);
      const ssize_t got = ::read(fd_, &buffer_[end_], room);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      end_ += static_cast<size_t>(got);
      unread_ -= static_cast<uint64_t>(got);
    }
    return true;
  }

  const int fd_;
  uint64_t unread_;
  std::vector<uint8_t> buffer_;
  size_t begin_ = 0;  // of what was read and not given yet
  size_t end_ = 0;
};

// The next frame's message. nullopt: it is cut short, or not what was sealed.
std::optional<std::span<const uint8_t>> NextMessage(Pieces& pieces, const JournalSeal& seal,
                                                    uint64_t frame) {
  const auto length_bytes = pieces.Next(sizeof(Length));
  if (!length_bytes) return std::nullopt;
  const auto length = GetLittleEndian<Length>(*length_bytes);
  if (length > limits::kJournalFrameBytesMax) return std::nullopt;
  const auto rest = pieces.Next(length + JournalSeal::kBytes);
  if (!rest) return std::nullopt;
  const std::span<uint8_t> message = rest->first(length);
  if (!seal.Open(frame, message, rest->last<JournalSeal::kBytes>())) return std::nullopt;
  return message;
}

std::string UnpublishedName(const std::string& path) {
  return absl::StrCat(path, ".new");
}

absl::Status DiskRefused(absl::string_view doing, const std::string& path, int error) {
  return Refusal(absl::StatusCode::kInternal, "NVME_JOURNAL",
                 absl::StrCat(doing, " the journal ", path, " failed (", std::strerror(error),
                              "): what the disk has is not kept over a restart"));
}

// A name that was given or taken away in a folder, on the disk.
bool SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const OpenFile open(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return open.get() >= 0 && ::fsync(open.get()) == 0;
}

}  // namespace

absl::StatusOr<FoundJournal> ReadJournal(const std::string& path, const DiskKey* key) {
  const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0 && errno == ENOENT) return absl::NotFoundError(path);
  struct stat found_file = {};
  if (file.get() < 0 || ::fstat(file.get(), &found_file) != 0) {
    return Withheld(path, absl::StrCat("cannot be read (", std::strerror(errno),
                                       "): give this process the right to"));
  }
  if (!S_ISREG(found_file.st_mode)) return Useless(path, "is no file");
  const auto file_bytes = static_cast<uint64_t>(found_file.st_size);
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Pieces pieces(file.get(), file_bytes);
  HeaderBytes header_bytes;
  const auto head = pieces.Next(header_bytes.size());
  if (!head) {
    return Useless(path, absl::StrCat("has ", file_bytes, " bytes, fewer than its header"));
  }
  std::copy(head->begin(), head->end(), header_bytes.begin());
  ReadHeader read;
  REPRISE_RETURN_IF_ERROR(Parse(path, header_bytes, key != nullptr, read));
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<JournalSeal> seal,
                           JournalSeal::Create(key, read.salt, header_bytes));
  if (!NextMessage(pieces, *seal, 0)) {
    const bool cut_short = file_bytes < header_bytes.size() + kFrameBytesBeside;
    if (!read.header.enciphered || cut_short) {
      return Useless(path, "is damaged at its beginning");
    }
    return Withheld(path,
                    "was written under another key, or is damaged at its beginning: give "
                    "--nvme-key the one that it was written under");
  }
  uint64_t good_bytes = header_bytes.size() + kFrameBytesBeside;
  KeptFold fold;
  for (uint64_t frame = 1;; ++frame) {
    const auto message = NextMessage(pieces, *seal, frame);
    if (!message) break;
    auto batch = DecodeBatch(*message);
    if (!batch) break;
    good_bytes += message->size() + kFrameBytesBeside;
    fold.Add(*std::move(batch));
  }
  FoundJournal found{.header = read.header, .contents = fold.Take()};
  found.contents.torn_bytes = file_bytes - good_bytes;
  if (found.contents.torn_bytes > 0) found.contents.closed = false;
  return found;
}

absl::StatusOr<std::unique_ptr<JournalWriter>> JournalWriter::Create(const std::string& path,
                                                                     const JournalHeader& header,
                                                                     const DiskKey* key) {
  REPRISE_CHECK(header.enciphered == (key != nullptr));
  const std::string name = UnpublishedName(path);
  const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return DiskRefused("making", name, errno);
  std::unique_ptr<JournalWriter> writer(new JournalWriter(path, fd));
  REPRISE_RETURN_IF_ERROR(writer->Begin(header, key));
  return writer;
}

JournalWriter::JournalWriter(std::string path, int fd)
    : path_(std::move(path)), name_(UnpublishedName(path_)), fd_(fd) {}

JournalWriter::~JournalWriter() {
  ::close(fd_);
  if (!published_) ::unlink(name_.c_str());
}

absl::Status JournalWriter::Begin(const JournalHeader& header, const DiskKey* key) {
  REPRISE_ASSIGN_OR_RETURN(const DiskSalt salt, NewSalt());
  const HeaderBytes bytes = ToBytes(header, salt);
  REPRISE_ASSIGN_OR_RETURN(seal_, JournalSeal::Create(key, salt, bytes));
  REPRISE_RETURN_IF_ERROR(Write(bytes));
  return Frame("");
}

absl::Status JournalWriter::Append(const KeptBatch& batch) {
  REPRISE_RETURN_IF_ERROR(failed_);
  return EncodeBatch(batch, [this](absl::string_view message) { return Frame(message); });
}

absl::Status JournalWriter::Frame(absl::string_view message) {
  REPRISE_CHECK(message.size() <= limits::kJournalFrameBytesMax);
  frame_.resize(message.size() + kFrameBytesBeside);
  const std::span<uint8_t> frame(frame_);
  PutLittleEndian(static_cast<Length>(message.size()), frame);
  const std::span<uint8_t> in_place = frame.subspan(sizeof(Length), message.size());
  std::copy(message.begin(), message.end(), in_place.begin());
  seal_->Close(frames_, in_place, frame.last<JournalSeal::kBytes>());
  ++frames_;
  return Write(frame);
}

absl::Status JournalWriter::Write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(bytes_));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return Failed("writing", put == 0 ? ENOSPC : errno);
    bytes_ += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

absl::Status JournalWriter::Sync() {
  REPRISE_RETURN_IF_ERROR(failed_);
  // What could not be written back the kernel may have forgotten by the next time.
  if (::fdatasync(fd_) != 0) return Failed("writing back", errno);
  return absl::OkStatus();
}

absl::Status JournalWriter::Publish() {
  REPRISE_CHECK(!published_);
  REPRISE_RETURN_IF_ERROR(Sync());
  if (::rename(name_.c_str(), path_.c_str()) != 0) return Failed("renaming", errno);
  published_ = true;
  if (!SyncFolderOf(path_)) return Failed("writing back the name of", errno);
  return absl::OkStatus();
}

absl::Status JournalWriter::Failed(absl::string_view doing, int error) {
  failed_ = DiskRefused(doing, published_ ? path_ : name_, error);
  return failed_;
}

void RemoveJournal(const std::string& path) {
  if (::unlink(path.c_str()) == 0) SyncFolderOf(path);
}

void RemoveUnpublishedJournal(const std::string& path) {
  ::unlink(UnpublishedName(path).c_str());
}

}  // namespace reprise::shard
