// Ciphertext for a file that lies on a disk, under a random key that only this process has: with
// the process ends what anybody can read of the file. Or under a key that it is given, for a file
// that is kept: then whoever has that key can read it. Whoever gets the disk, an image of it, or
// several over time, gets noise; which pieces of a place changed between two images it does see.
//
// AES-256 in XTS mode (IEEE 1619, NIST SP 800-38E), what disks are encrypted with: the tweak is a
// unit's number in the file, and each piece of 16 bytes is enciphered for itself. It keeps lengths,
// and a place is written over as often as one likes with nothing to remember. AES-256-CTR would be
// faster, but two texts under one counter give away their difference, and a disk keeps the older
// one (an image, a spare flash page): every write, however small, and the second one of a slot too,
// would need a counter that was never used, kept in memory for each place. The price of XTS is that
// equal bytes written to one place again give equal ciphertext. Neither protects from whoever
// changes the disk while the process runs: to the block's checksum, which is no MAC, a change is an
// accident.
//
// A piece that is all zeroes in the file, as wiping leaves it, is zeroes in memory too. That a
// piece which was written is all zeroes there has a probability of 2^-128, and is then a checksum
// that does not match, a miss.
//
// Invariants: the key lies in a SecretPage; working copies of it live for the length of one call
// and are overwritten at its end.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "service/pool/secret_page.h"

namespace reprise::shard {

// What becomes of bytes on their way to a disk.
enum class DiskCipher {
  kAes256,  // FileCipher
  kNone,    // nothing: for a disk that is encrypted already
};

class FileCipher {
 public:
  static constexpr size_t kPieceBytes = 16;
  // XTS's data unit. With 4 KiB, OpenSSL 3.0 is a third slower at beginning them.
  static constexpr size_t kUnitBytes = 16 << 10;
  static constexpr size_t kKeyBytes = 64;
  using Key = std::array<uint8_t, kKeyBytes>;  // of the bytes, then of the tweaks

  // Under a new random key. FAILED_PRECONDITION when OpenSSL has no AES-256-XTS or no randomness,
  // RESOURCE_EXHAUSTED when there is no memory for the key.
  static absl::StatusOr<std::unique_ptr<FileCipher>> Create();
  // Under a given key, of which it makes a copy. Statuses as above.
  static absl::StatusOr<std::unique_ptr<FileCipher>> WithKey(const Key& key);
  ~FileCipher();
  FileCipher(const FileCipher&) = delete;
  FileCipher& operator=(const FileCipher&) = delete;

  // `from`, which is to lie at `offset` of the file, as ciphertext in `to`.
  // REQUIRES: offset and size are multiples of kPieceBytes; `to` has the size of `from`, and is it
  // or overlaps none of it.
  void Encrypt(uint64_t offset, std::span<const uint8_t> from, std::span<uint8_t> to) const;
  // What was read at `offset` of the file, back in its place. REQUIRES: as Encrypt.
  void Decrypt(uint64_t offset, std::span<uint8_t> bytes) const;

 private:
  struct Algorithm;  // OpenSSL's

  FileCipher(std::unique_ptr<Algorithm> algorithm, std::unique_ptr<SecretPage> key);
  static absl::StatusOr<std::unique_ptr<FileCipher>> Open(const Key* known);

  const std::unique_ptr<Algorithm> algorithm_;
  const std::unique_ptr<SecretPage> key_;
};

}  // namespace reprise::shard
