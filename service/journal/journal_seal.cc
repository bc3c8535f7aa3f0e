#include "service/journal/journal_seal.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/checksum/checksum.h"
#include "proto/types/status_macros.h"
#include "service/journal/little_endian.h"
#include "service/pool/secret_page.h"

namespace reprise::shard {
namespace {

constexpr char kPurpose[] = "reprise journal";
constexpr size_t kKeyBytes = 32;
using Length = uint32_t;  // of a message, as frames have it

enum class Direction : int { kDecrypt = 0, kEncrypt = 1 };

// The key, expanded, for one frame: its copies of it are OpenSSL's, which overwrites them.
class Run {
 public:
  Run(const EVP_CIPHER* algorithm, const uint8_t* key, uint64_t frame, Direction direction)
      : context_(EVP_CIPHER_CTX_new()) {
    std::array<uint8_t, 12> nonce = {};
    PutLittleEndian(frame, nonce);
    REPRISE_CHECK(context_ != nullptr);
    REPRISE_CHECK(EVP_CipherInit_ex2(context_, algorithm, key, nonce.data(),
                                     static_cast<int>(direction), nullptr) == 1);
  }
  ~Run() { EVP_CIPHER_CTX_free(context_); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  void Authenticate(std::span<const uint8_t> bytes) { Update(nullptr, bytes); }
  void InPlace(std::span<uint8_t> bytes) {
    if (!bytes.empty()) Update(bytes.data(), bytes);
  }
  bool Finish() {
    std::array<uint8_t, EVP_MAX_BLOCK_LENGTH> rest;  // a stream cipher has none
    int done = 0;
    return EVP_CipherFinal_ex(context_, rest.data(), &done) == 1;
  }
  void Tag(int control, JournalSeal::Bytes tag) {
    REPRISE_CHECK(
        EVP_CIPHER_CTX_ctrl(context_, control, static_cast<int>(tag.size()), tag.data()) == 1);
  }

 private:
  void Update(uint8_t* to, std::span<const uint8_t> from) {
    int done = 0;
    REPRISE_CHECK(
        EVP_CipherUpdate(context_, to, &done, from.data(), static_cast<int>(from.size())) == 1);
    REPRISE_CHECK(static_cast<size_t>(done) == from.size());
  }

  EVP_CIPHER_CTX* const context_;
};

std::array<uint8_t, sizeof(Length)> LengthOf(std::span<const uint8_t> message) {
  std::array<uint8_t, sizeof(Length)> length;
  PutLittleEndian(static_cast<Length>(message.size()), length);
  return length;
}

}  // namespace

struct JournalSeal::Cipher {
  Cipher(EVP_CIPHER* fetched, std::unique_ptr<SecretPage> secret)
      : algorithm(fetched), key(std::move(secret)) {}
  ~Cipher() { EVP_CIPHER_free(algorithm); }
  Cipher(const Cipher&) = delete;
  Cipher& operator=(const Cipher&) = delete;

  EVP_CIPHER* const algorithm;
  const std::unique_ptr<SecretPage> key;
};

absl::StatusOr<std::unique_ptr<JournalSeal>> JournalSeal::Create(const DiskKey* key,
                                                                 const DiskSalt& salt,
                                                                 std::span<const uint8_t> header) {
  std::unique_ptr<Cipher> cipher;
  if (key != nullptr) {
    std::unique_ptr<SecretPage> secret = SecretPage::Create(kKeyBytes);
    if (secret == nullptr) return NoSecretPage();
    key->Derive(salt, kPurpose, secret->bytes().first(kKeyBytes));
    cipher = std::make_unique<Cipher>(EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr),
                                      std::move(secret));
    if (cipher->algorithm == nullptr) return NoCipher("AES-256-GCM");
  }
  return std::unique_ptr<JournalSeal>(new JournalSeal(header, std::move(cipher)));
}

JournalSeal::JournalSeal(std::span<const uint8_t> header, std::unique_ptr<Cipher> cipher)
    : header_(header.begin(), header.end()), cipher_(std::move(cipher)) {}

JournalSeal::~JournalSeal() = default;

void JournalSeal::Close(uint64_t frame, std::span<uint8_t> message, Bytes seal) const {
  if (cipher_ == nullptr) return Checksum(frame, message, seal);
  Run run(cipher_->algorithm, cipher_->key->bytes().data(), frame, Direction::kEncrypt);
  run.Authenticate(header_);
  run.Authenticate(LengthOf(message));
  run.InPlace(message);
  REPRISE_CHECK(run.Finish());
  run.Tag(EVP_CTRL_AEAD_GET_TAG, seal);
}

bool JournalSeal::Open(uint64_t frame, std::span<uint8_t> message, Bytes seal) const {
  if (cipher_ == nullptr) {
    std::array<uint8_t, kBytes> right;
    Checksum(frame, message, right);
    return std::equal(right.begin(), right.end(), seal.begin());
  }
  Run run(cipher_->algorithm, cipher_->key->bytes().data(), frame, Direction::kDecrypt);
  run.Authenticate(header_);
  run.Authenticate(LengthOf(message));
  run.InPlace(message);
  run.Tag(EVP_CTRL_AEAD_SET_TAG, seal);
  return run.Finish();
}

// Of the header, the frame's number, the message's length and its checksum: the message lies apart.
void JournalSeal::Checksum(uint64_t frame, std::span<const uint8_t> message, Bytes seal) const {
  static_assert(kernels::kChecksumDigestBytes == kBytes);
  std::array<uint8_t, sizeof(frame)> number;
  PutLittleEndian(frame, number);
  const auto length = LengthOf(message);
  std::array<uint8_t, kBytes> digest = {};
  if (!message.empty()) {
    kernels::ChecksumBlock(message.data(), message.size(), message.size(), digest.data());
  }
  std::vector<uint8_t> all = header_;
  all.insert(all.end(), number.begin(), number.end());
  all.insert(all.end(), length.begin(), length.end());
  all.insert(all.end(), digest.begin(), digest.end());
  kernels::ChecksumBlock(all.data(), all.size(), all.size(), seal.data());
}

}  // namespace reprise::shard
