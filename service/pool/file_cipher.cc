#include "service/pool/file_cipher.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <bitset>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

enum class Direction : int { kDecrypt = 0, kEncrypt = 1 };

absl::Status NoCipher(absl::string_view what) {
  return Refusal(absl::StatusCode::kFailedPrecondition, "NVME_CIPHER",
                 absl::StrCat("OpenSSL has no ", what,
                              " here: mend its configuration (openssl.cnf), or keep the disk tier "
                              "on a volume that is encrypted and start with --nvme-cipher none"));
}

// The key, expanded, for one call: its copies of it are OpenSSL's, which overwrites them.
class Run {
 public:
  Run(const EVP_CIPHER* algorithm, const uint8_t* key, Direction direction)
      : context_(EVP_CIPHER_CTX_new()) {
    REPRISE_CHECK(context_ != nullptr);
    REPRISE_CHECK(EVP_CipherInit_ex2(context_, algorithm, key, nullptr, static_cast<int>(direction),
                                     nullptr) == 1);
  }
  ~Run() { EVP_CIPHER_CTX_free(context_); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // The beginning of a unit, of `bytes`, from `from` to `to`.
  void Unit(uint64_t number, const uint8_t* from, uint8_t* to, size_t bytes) {
    std::array<uint8_t, 16> tweak = {};  // little-endian
    for (size_t i = 0; i < sizeof(number); ++i) {
      tweak[i] = static_cast<uint8_t>(number >> (8 * i));
    }
    int done = 0;
    REPRISE_CHECK(EVP_CipherInit_ex2(context_, nullptr, nullptr, tweak.data(), -1, nullptr) == 1);
    REPRISE_CHECK(EVP_CipherUpdate(context_, to, &done, from, static_cast<int>(bytes)) == 1);
    REPRISE_CHECK(static_cast<size_t>(done) == bytes);
  }

 private:
  EVP_CIPHER_CTX* const context_;
};

constexpr size_t kPieces = FileCipher::kUnitBytes / FileCipher::kPieceBytes;

std::bitset<kPieces> ZeroPieces(const uint8_t* unit, size_t bytes) {
  std::bitset<kPieces> zero;
  for (size_t at = 0; at < bytes; at += FileCipher::kPieceBytes) {
    std::array<uint64_t, 2> words;
    std::memcpy(words.data(), unit + at, sizeof(words));
    if ((words[0] | words[1]) == 0) zero.set(at / FileCipher::kPieceBytes);
  }
  return zero;
}

void DecryptUnit(Run& run, uint64_t number, uint8_t* unit, size_t bytes) {
  const std::bitset<kPieces> zero = ZeroPieces(unit, bytes);
  run.Unit(number, unit, unit, bytes);
  if (zero.none()) return;
  for (size_t at = 0; at < bytes; at += FileCipher::kPieceBytes) {
    if (zero[at / FileCipher::kPieceBytes]) std::memset(unit + at, 0, FileCipher::kPieceBytes);
  }
}

// Calls `body(unit number, bytes of the unit before the part, part's place in the range, its
// bytes)` for each unit that the range has a part of.
template <typename Body>
void ForEachUnit(uint64_t offset, size_t bytes, const Body& body) {
  REPRISE_CHECK(offset % FileCipher::kPieceBytes == 0 && bytes % FileCipher::kPieceBytes == 0);
  for (size_t done = 0; done < bytes;) {
    const size_t before = (offset + done) % FileCipher::kUnitBytes;
    const size_t part = std::min(FileCipher::kUnitBytes - before, bytes - done);
    body((offset + done) / FileCipher::kUnitBytes, before, done, part);
    done += part;
  }
}

}  // namespace

struct FileCipher::Algorithm {
  explicit Algorithm(EVP_CIPHER* fetched) : cipher(fetched) {}
  ~Algorithm() { EVP_CIPHER_free(cipher); }
  Algorithm(const Algorithm&) = delete;
  Algorithm& operator=(const Algorithm&) = delete;

  EVP_CIPHER* const cipher;  // looking it up costs more than a call
};

FileCipher::FileCipher(std::unique_ptr<Algorithm> algorithm, std::unique_ptr<SecretPage> key)
    : algorithm_(std::move(algorithm)), key_(std::move(key)) {}

FileCipher::~FileCipher() = default;

absl::StatusOr<std::unique_ptr<FileCipher>> FileCipher::Create() {
  return Open(nullptr);
}

absl::StatusOr<std::unique_ptr<FileCipher>> FileCipher::WithKey(const Key& key) {
  return Open(&key);
}

absl::StatusOr<std::unique_ptr<FileCipher>> FileCipher::Open(const Key* known) {
  auto algorithm = std::make_unique<Algorithm>(EVP_CIPHER_fetch(nullptr, "AES-256-XTS", nullptr));
  if (algorithm->cipher == nullptr) return NoCipher("AES-256-XTS");
  std::unique_ptr<SecretPage> secret = SecretPage::Create(kKeyBytes);
  if (secret == nullptr) {
    return Refusal(absl::StatusCode::kResourceExhausted, "NO_MEMORY",
                   absl::StrCat("a page for the disk's key failed (", std::strerror(errno),
                                "): start with a smaller --dram"));
  }
  if (known != nullptr) {
    std::copy(known->begin(), known->end(), secret->bytes().begin());
  } else if (RAND_priv_bytes(secret->bytes().data(), kKeyBytes) != 1) {
    return NoCipher("randomness for a key");
  }
  return std::unique_ptr<FileCipher>(new FileCipher(std::move(algorithm), std::move(secret)));
}

void FileCipher::Encrypt(uint64_t offset, std::span<const uint8_t> from,
                         std::span<uint8_t> to) const {
  REPRISE_CHECK(from.size() == to.size());
  Run run(algorithm_->cipher, key_->bytes().data(), Direction::kEncrypt);
  ForEachUnit(offset, from.size(), [&](uint64_t number, size_t before, size_t at, size_t bytes) {
    if (before == 0) {
      run.Unit(number, &from[at], &to[at], bytes);
      return;
    }
    // OpenSSL begins with a unit's first piece, whatever that is.
    std::array<uint8_t, kUnitBytes> unit;
    std::memset(unit.data(), 0, before);
    std::memcpy(&unit[before], &from[at], bytes);
    run.Unit(number, unit.data(), unit.data(), before + bytes);
    std::memcpy(&to[at], &unit[before], bytes);
  });
}

void FileCipher::Decrypt(uint64_t offset, std::span<uint8_t> bytes) const {
  Run run(algorithm_->cipher, key_->bytes().data(), Direction::kDecrypt);
  ForEachUnit(offset, bytes.size(), [&](uint64_t number, size_t before, size_t at, size_t size) {
    if (before == 0) {
      DecryptUnit(run, number, &bytes[at], size);
      return;
    }
    std::array<uint8_t, kUnitBytes> unit;
    std::memset(unit.data(), 0, before);
    std::memcpy(&unit[before], &bytes[at], size);
    DecryptUnit(run, number, unit.data(), before + size);
    std::memcpy(&bytes[at], &unit[before], size);
  });
}

}  // namespace reprise::shard
