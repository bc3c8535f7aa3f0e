// Memory for a secret, such as a key: a page of its own, which no core dump has, which is not
// swapped out where the process may lock memory, and which is overwritten at its end.
//
// Thread safety: as a plain array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace reprise::shard {

class SecretPage {
 public:
  // All zeroes. nullptr, and errno, when there is no memory. REQUIRES: bytes > 0.
  static std::unique_ptr<SecretPage> Create(size_t bytes);
  ~SecretPage();
  SecretPage(const SecretPage&) = delete;
  SecretPage& operator=(const SecretPage&) = delete;

  std::span<uint8_t> bytes() { return bytes_; }

 private:
  explicit SecretPage(std::span<uint8_t> bytes) : bytes_(bytes) {}

  const std::span<uint8_t> bytes_;
};

}  // namespace reprise::shard
