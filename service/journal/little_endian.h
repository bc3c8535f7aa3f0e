// Numbers in a file, whatever machine reads it.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace reprise::shard {

// REQUIRES: `to` has room for it.
template <typename Number>
void PutLittleEndian(Number number, std::span<uint8_t> to) {
  for (size_t i = 0; i < sizeof(Number); ++i) to[i] = static_cast<uint8_t>(number >> (8 * i));
}

// REQUIRES: `from` has as many bytes.
template <typename Number>
Number GetLittleEndian(std::span<const uint8_t> from) {
  Number number = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) number |= static_cast<Number>(from[i]) << (8 * i);
  return number;
}

}  // namespace reprise::shard
