#include "proto/types/sha256.h"

#include <openssl/evp.h>

#include "proto/types/status_macros.h"

namespace reprise {
namespace {

// Fetched once: looking the algorithm up costs more than hashing a key.
const EVP_MD* Sha256Algorithm() {
  static const EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return algorithm;
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  REPRISE_CHECK(context_ != nullptr && Sha256Algorithm() != nullptr);
  REPRISE_CHECK(EVP_DigestInit_ex2(context_, Sha256Algorithm(), nullptr) == 1);
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(context_);
}

void Sha256::Hash(std::span<const uint8_t> input, std::span<uint8_t, kDigestBytes> digest) {
  REPRISE_CHECK(EVP_DigestInit_ex2(context_, nullptr, nullptr) == 1);
  REPRISE_CHECK(EVP_DigestUpdate(context_, input.data(), input.size()) == 1);
  REPRISE_CHECK(EVP_DigestFinal_ex(context_, digest.data(), nullptr) == 1);
}

}  // namespace reprise
