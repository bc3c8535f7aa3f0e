#include "service/pool/secret_page.h"

#include <openssl/crypto.h>
#include <sys/mman.h>

#include "proto/types/status_macros.h"

namespace reprise::shard {

std::unique_ptr<SecretPage> SecretPage::Create(size_t bytes) {
  REPRISE_CHECK(bytes > 0);
  void* const page =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  ::madvise(page, bytes, MADV_DONTDUMP);
  // Refused beyond RLIMIT_MEMLOCK: then encrypted swap is what is left.
  (void)::mlock(page, bytes);
  return std::unique_ptr<SecretPage>(new SecretPage({static_cast<uint8_t*>(page), bytes}));
}

SecretPage::~SecretPage() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace reprise::shard
