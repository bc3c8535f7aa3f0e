// What proves a journal's frame whole: that its message is the one that was written as this frame
// of this file, after this header.
//
// With a key AES-256-GCM (NIST SP 800-38D), which enciphers the message as well: under a key that
// is derived for the file's own random salt, so that no two files share one; the nonce is the
// frame's number, and the header and the message's length are authenticated with it. Without one
// the block checksum of all that, which finds accidents, not attacks.
//
// Invariants: the key lies in a page that no core dump has (service/pool/secret_page.h); working
// copies of it live for the length of one call.
// Thread safety: as a plain array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "service/journal/disk_key.h"

namespace reprise::shard {

class JournalSeal {
 public:
  static constexpr size_t kBytes = 16;
  using Bytes = std::span<uint8_t, kBytes>;

  // `key`: nullptr for one that enciphers nothing; it outlives this call only. FAILED_PRECONDITION
  // where OpenSSL has no AES-256-GCM, RESOURCE_EXHAUSTED when there is no memory for the key.
  static absl::StatusOr<std::unique_ptr<JournalSeal>> Create(const DiskKey* key,
                                                             const DiskSalt& salt,
                                                             std::span<const uint8_t> header);
  ~JournalSeal();
  JournalSeal(const JournalSeal&) = delete;
  JournalSeal& operator=(const JournalSeal&) = delete;

  // Enciphers the message in its place, and makes the seal. REQUIRES: `frame` was not sealed before
  // under this salt.
  void Close(uint64_t frame, std::span<uint8_t> message, Bytes seal) const;
  // Deciphers the message in its place. False when it is not what was sealed: what it is then means
  // nothing.
  bool Open(uint64_t frame, std::span<uint8_t> message, Bytes seal) const;

 private:
  struct Cipher;

  JournalSeal(std::span<const uint8_t> header, std::unique_ptr<Cipher> cipher);
  void Checksum(uint64_t frame, std::span<const uint8_t> message, Bytes seal) const;

  const std::vector<uint8_t> header_;
  const std::unique_ptr<Cipher> cipher_;  // nullptr: none
};

}  // namespace reprise::shard
