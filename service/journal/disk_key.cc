#include "service/journal/disk_key.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/pool/secret_page.h"

namespace reprise::shard {
namespace {

absl::Status BadKey(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, "NVME_KEY", sentence);
}

bool Hkdf(EVP_KDF* kdf, std::span<uint8_t> secret, const DiskSalt& salt, absl::string_view purpose,
          std::span<uint8_t> key) {
  EVP_KDF_CTX* const context = EVP_KDF_CTX_new(kdf);
  if (context == nullptr) return false;
  // OpenSSL's parameters are for results too, and take no const.
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, const_cast<uint8_t*>(salt.data()),
                                        salt.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<char*>(purpose.data()),
                                        purpose.size()),
      OSSL_PARAM_construct_end()};
  const bool derived = EVP_KDF_derive(context, key.data(), key.size(), parameters) == 1;
  EVP_KDF_CTX_free(context);  // overwrites its copy of the secret
  return derived;
}

// Until the file ends or `to` is full. -1, and errno, when it cannot be read.
ssize_t ReadAll(const std::string& path, std::span<uint8_t> to) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = ::read(fd, &to[done], to.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(fd);
      errno = error;
      return -1;
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  ::close(fd);
  return static_cast<ssize_t>(done);
}

}  // namespace

class DiskKey::Secret {
 public:
  static absl::StatusOr<std::unique_ptr<Secret>> Create() {
    std::unique_ptr<SecretPage> page = SecretPage::Create(kRoomBytes);
    if (page == nullptr) return NoSecretPage();
    std::unique_ptr<Secret> secret(
        new Secret(std::move(page), EVP_KDF_fetch(nullptr, "HKDF", nullptr)));
    // What it refuses is refused here, and not when a key is wanted.
    std::array<uint8_t, 32> key;
    if (secret->kdf_ == nullptr || !Hkdf(secret->kdf_, secret->room().first(key.size()), DiskSalt{},
                                         "whether OpenSSL has it", key)) {
      return NoCipher("HKDF with SHA-256");
    }
    return secret;
  }
  ~Secret() { EVP_KDF_free(kdf_); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  // For one byte more than a secret may have: so a longer one is noticed.
  std::span<uint8_t> room() { return page_->bytes().first(kRoomBytes); }
  size_t bytes = 0;  // of `room`

  void Derive(const DiskSalt& salt, absl::string_view purpose, std::span<uint8_t> key) {
    REPRISE_CHECK(Hkdf(kdf_, room().first(bytes), salt, purpose, key));
  }

 private:
  static constexpr size_t kRoomBytes = limits::kDiskKeyBytesMax + 1;

  Secret(std::unique_ptr<SecretPage> page, EVP_KDF* kdf) : page_(std::move(page)), kdf_(kdf) {}
  const std::unique_ptr<SecretPage> page_;
  EVP_KDF* const kdf_;
};

DiskKey::DiskKey(std::unique_ptr<Secret> secret) : secret_(std::move(secret)) {}

DiskKey::~DiskKey() = default;

absl::StatusOr<std::unique_ptr<DiskKey>> DiskKey::Read(const std::string& path) {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<Secret> secret, Secret::Create());
  const ssize_t got = ReadAll(path, secret->room());
  if (got < 0) {
    return BadKey(absl::StrCat("the disk's key cannot be read from ", path, " (",
                               std::strerror(errno), "): name a file that this process may read"));
  }
  secret->bytes = static_cast<size_t>(got);
  return Checked(std::move(secret), absl::StrCat(" in ", path));
}

absl::StatusOr<std::unique_ptr<DiskKey>> DiskKey::Of(std::span<const uint8_t> bytes) {
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<Secret> secret, Secret::Create());
  secret->bytes = std::min(bytes.size(), secret->room().size());
  std::copy_n(bytes.begin(), secret->bytes, secret->room().begin());
  return Checked(std::move(secret), "");
}

absl::StatusOr<std::unique_ptr<DiskKey>> DiskKey::Checked(std::unique_ptr<Secret> secret,
                                                          absl::string_view where) {
  const size_t bytes = secret->bytes;
  if (bytes < limits::kDiskKeyBytesMin || bytes > limits::kDiskKeyBytesMax) {
    return BadKey(absl::StrCat("the disk's key", where, " has ",
                               bytes > limits::kDiskKeyBytesMax ? "at least " : "", bytes,
                               " bytes: make one of ", limits::kDiskKeyBytesMin, " to ",
                               limits::kDiskKeyBytesMax, " random bytes"));
  }
  return std::unique_ptr<DiskKey>(new DiskKey(std::move(secret)));
}

void DiskKey::Derive(const DiskSalt& salt, absl::string_view purpose,
                     std::span<uint8_t> key) const {
  secret_->Derive(salt, purpose, key);
}

absl::StatusOr<DiskSalt> NewSalt() {
  DiskSalt salt;
  if (RAND_bytes(salt.data(), static_cast<int>(salt.size())) != 1) {
    return NoCipher("randomness for a salt");
  }
  return salt;
}

absl::Status NoCipher(absl::string_view what) {
  return Refusal(absl::StatusCode::kFailedPrecondition, "NVME_CIPHER",
                 absl::StrCat("OpenSSL has no ", what,
                              " here: mend its configuration (openssl.cnf), or keep the disk tier "
                              "on a volume that is encrypted and start with --nvme-cipher none"));
}

absl::Status NoSecretPage() {
  return Refusal(absl::StatusCode::kResourceExhausted, "NO_MEMORY",
                 absl::StrCat("a page for the disk's key failed (", std::strerror(errno),
                              "): start with a smaller --dram"));
}

}  // namespace reprise::shard
