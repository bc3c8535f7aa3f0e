// The secret that an operator gives a disk that is kept over restarts, and the keys that are made
// from it: HKDF-SHA256 (RFC 5869), one key for each salt and purpose, so that no two journals share
// one and the blocks' is none of theirs.
//
// Invariants: the secret lies in a page that no core dump has (service/pool/secret_page.h).
// Thread safety: const after it was read.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace reprise::shard {

using DiskSalt = std::array<uint8_t, 32>;

class DiskKey {
 public:
  // All bytes of the file, kDiskKeyBytesMin to kDiskKeyBytesMax, whatever they are. NVME_KEY
  // (INVALID_ARGUMENT) when it cannot be read, or has another length; NVME_CIPHER
  // (FAILED_PRECONDITION) where OpenSSL has no HKDF; NO_MEMORY (RESOURCE_EXHAUSTED).
  static absl::StatusOr<std::unique_ptr<DiskKey>> Read(const std::string& path);
  static absl::StatusOr<std::unique_ptr<DiskKey>> Of(std::span<const uint8_t> secret);
  ~DiskKey();
  DiskKey(const DiskKey&) = delete;
  DiskKey& operator=(const DiskKey&) = delete;

  // Fills `key` for a salt and a purpose, e.g. "journal". The caller overwrites it when done.
  void Derive(const DiskSalt& salt, absl::string_view purpose, std::span<uint8_t> key) const;

 private:
  class Secret;
  explicit DiskKey(std::unique_ptr<Secret> secret);
  static absl::StatusOr<std::unique_ptr<DiskKey>> Checked(std::unique_ptr<Secret> secret,
                                                          absl::string_view where);
  const std::unique_ptr<Secret> secret_;
};

// Random. FAILED_PRECONDITION where OpenSSL has no randomness.
absl::StatusOr<DiskSalt> NewSalt();

// NVME_CIPHER (FAILED_PRECONDITION): OpenSSL lacks `what`.
absl::Status NoCipher(absl::string_view what);
// NO_MEMORY (RESOURCE_EXHAUSTED), with errno: SecretPage::Create failed.
absl::Status NoSecretPage();

}  // namespace reprise::shard
