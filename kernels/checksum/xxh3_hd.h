// XXH3-128 with seed 0 and the default secret, for GPU threads and, the same code, for the CPU.
//
// Written from the algorithm's published description (github.com/Cyan4973/xxHash,
// doc/xxhash_spec.md). Long inputs (over 240 bytes) are cut so that four threads, a quad, share one
// input without a word between them until its end: XXH3 keeps eight 64-bit sums, a 64-byte stripe
// feeds each sum from its own 8 bytes and those of its neighbour, and so thread p of a quad owns
// sums 2p and 2p + 1 and reads 16 bytes of every stripe.
//
// Thread safety: pure functions. C++17.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/runtime/host_device.h"

namespace reprise::kernels::xxh3 {

struct Hash128 {
  uint64_t low;
  uint64_t high;
};

inline constexpr uint32_t kQuadThreads = 4;
inline constexpr uint64_t kShortBytesMax = 240;  // longer inputs go by quads
inline constexpr uint64_t kStripeBytes = 64;
inline constexpr uint32_t kStripesPerRound = 16;  // then the sums are scrambled
inline constexpr uint64_t kRoundBytes = kStripeBytes * kStripesPerRound;

inline constexpr uint64_t kPrime32_1 = 0x9E3779B1u;
inline constexpr uint64_t kPrime32_2 = 0x85EBCA77u;
inline constexpr uint64_t kPrime32_3 = 0xC2B2AE3Du;
inline constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87ull;
inline constexpr uint64_t kPrime64_2 = 0xC2B2AE3D27D4EB4Full;
inline constexpr uint64_t kPrime64_3 = 0x165667B19E3779F9ull;
inline constexpr uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63ull;
inline constexpr uint64_t kPrime64_5 = 0x27D4EB2F165667C5ull;
inline constexpr uint64_t kMix1 = 0x165667919E3779F9ull;
inline constexpr uint64_t kMix2 = 0x9FB21C651E98DF25ull;

// The default secret: 192 bytes as little-endian words.
#define REPRISE_XXH3_SECRET                                                                       \
  0xbe4ba423396cfeb8ull, 0x1cad21f72c81017cull, 0xdb979083e96dd4deull, 0x1f67b3b7a4a44072ull,     \
      0x78e5c0cc4ee679cbull, 0x2172ffcc7dd05a82ull, 0x8e2443f7744608b8ull, 0x4c263a81e69035e0ull, \
      0xcb00c391bb52283cull, 0xa32e531b8b65d088ull, 0x4ef90da297486471ull, 0xd8acdea946ef1938ull, \
      0x3f349ce33f76faa8ull, 0x1d4f0bc7c7bbdcf9ull, 0x3159b4cd4be0518aull, 0x647378d9c97e9fc8ull, \
      0xc3ebd33483acc5eaull, 0xeb6313faffa081c5ull, 0x49daf0b751dd0d17ull, 0x9e68d429265516d3ull, \
      0xfca1477d58be162bull, 0xce31d07ad1b8f88full, 0x280416958f3acb45ull, 0x7e404bbbcafbd7afull
inline constexpr uint32_t kSecretWords = 24;
inline constexpr uint64_t kSecretHost[kSecretWords] = {REPRISE_XXH3_SECRET};
#ifdef __CUDACC__
static __device__ __constant__ uint64_t kSecretDevice[kSecretWords] = {REPRISE_XXH3_SECRET};
#endif
#undef REPRISE_XXH3_SECRET

REPRISE_HD uint64_t SecretWord(uint32_t word) {
#ifdef __CUDA_ARCH__
  return kSecretDevice[word];
#else
  return kSecretHost[word];
#endif
}

// The 8 secret bytes from any byte on.
REPRISE_HD uint64_t SecretAt(uint32_t byte) {
  const uint32_t shift = 8 * (byte % 8);
  const uint64_t word = SecretWord(byte / 8);
  return shift == 0 ? word : word >> shift | SecretWord(byte / 8 + 1) << (64 - shift);
}

REPRISE_HD uint64_t Read64(const uint8_t* bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof(value));
  return value;
}

REPRISE_HD uint32_t Read32(const uint8_t* bytes) {
  uint32_t value;
  memcpy(&value, bytes, sizeof(value));
  return value;
}

REPRISE_HD uint32_t ByteSwap32(uint32_t x) {
  return x >> 24 | (x >> 8 & 0xFF00u) | (x << 8 & 0xFF0000u) | x << 24;
}

REPRISE_HD uint64_t ByteSwap64(uint64_t x) {
  return static_cast<uint64_t>(ByteSwap32(static_cast<uint32_t>(x))) << 32 |
         ByteSwap32(static_cast<uint32_t>(x >> 32));
}

REPRISE_HD Hash128 Multiply(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return {a * b, __umul64hi(a, b)};
#else
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return {static_cast<uint64_t>(product), static_cast<uint64_t>(product >> 64)};
#endif
}

REPRISE_HD uint64_t MultiplyFold(uint64_t a, uint64_t b) {
  const Hash128 product = Multiply(a, b);
  return product.low ^ product.high;
}

REPRISE_HD uint64_t Avalanche(uint64_t x) {
  x ^= x >> 37;
  x *= kMix1;
  return x ^ x >> 32;
}

REPRISE_HD uint64_t AvalancheXxh64(uint64_t x) {
  x ^= x >> 33;
  x *= kPrime64_2;
  x ^= x >> 29;
  x *= kPrime64_3;
  return x ^ x >> 32;
}

// ---- Inputs of 1 to 240 bytes, by one thread

REPRISE_HD Hash128 Hash1To3(const uint8_t* in, uint32_t bytes) {
  const uint32_t combined = static_cast<uint32_t>(in[bytes - 1]) | bytes << 8 |
                            static_cast<uint32_t>(in[0]) << 16 |
                            static_cast<uint32_t>(in[bytes >> 1]) << 24;
  const uint32_t swapped = ByteSwap32(combined);
  const uint32_t turned = swapped << 13 | swapped >> 19;
  const uint64_t first = SecretWord(0);
  const uint64_t second = SecretWord(1);
  const uint32_t flip_low = static_cast<uint32_t>(first) ^ static_cast<uint32_t>(first >> 32);
  const uint32_t flip_high = static_cast<uint32_t>(second) ^ static_cast<uint32_t>(second >> 32);
  return {AvalancheXxh64(combined ^ flip_low), AvalancheXxh64(turned ^ flip_high)};
}

REPRISE_HD Hash128 Hash4To8(const uint8_t* in, uint32_t bytes) {
  const uint64_t combined = Read32(in) | static_cast<uint64_t>(Read32(in + bytes - 4)) << 32;
  Hash128 hash = Multiply(SecretWord(2) ^ SecretWord(3) ^ combined, kPrime64_1 + (bytes << 2));
  hash.high += hash.low << 1;
  hash.low ^= hash.high >> 3;
  hash.low ^= hash.low >> 35;
  hash.low *= kMix2;
  hash.low ^= hash.low >> 28;
  hash.high = Avalanche(hash.high);
  return hash;
}

REPRISE_HD Hash128 Hash9To16(const uint8_t* in, uint32_t bytes) {
  const uint64_t low = Read64(in);
  uint64_t high = Read64(in + bytes - 8);
  Hash128 mixed = Multiply(low ^ high ^ SecretWord(4) ^ SecretWord(5), kPrime64_1);
  mixed.low += static_cast<uint64_t>(bytes - 1) << 54;
  high ^= SecretWord(6) ^ SecretWord(7);
  mixed.high += high + static_cast<uint64_t>(static_cast<uint32_t>(high)) * (kPrime32_2 - 1);
  mixed.low ^= ByteSwap64(mixed.high);
  Hash128 hash = Multiply(mixed.low, kPrime64_2);
  hash.high += mixed.high * kPrime64_2;
  return {Avalanche(hash.low), Avalanche(hash.high)};
}

// Mixes 16 bytes at `first` and 16 at `second` into the two sums, with 32 secret bytes from
// `secret` on.
REPRISE_HD void MixPair(Hash128& sums, const uint8_t* first, const uint8_t* second,
                        uint32_t secret) {
  const uint64_t a0 = Read64(first);
  const uint64_t a1 = Read64(first + 8);
  const uint64_t b0 = Read64(second);
  const uint64_t b1 = Read64(second + 8);
  sums.low += MultiplyFold(a0 ^ SecretAt(secret), a1 ^ SecretAt(secret + 8));
  sums.low ^= b0 + b1;
  sums.high += MultiplyFold(b0 ^ SecretAt(secret + 16), b1 ^ SecretAt(secret + 24));
  sums.high ^= a0 + a1;
}

REPRISE_HD Hash128 FinishPairs(const Hash128& sums, uint64_t bytes) {
  const uint64_t low = sums.low + sums.high;
  const uint64_t high = sums.low * kPrime64_1 + sums.high * kPrime64_4 + bytes * kPrime64_2;
  return {Avalanche(low), 0 - Avalanche(high)};
}

REPRISE_HD Hash128 Hash17To128(const uint8_t* in, uint32_t bytes) {
  Hash128 sums = {bytes * kPrime64_1, 0};
  for (uint32_t pair = (bytes - 1) / 32 + 1; pair-- > 0;) {
    MixPair(sums, in + 16 * pair, in + bytes - 16 * (pair + 1), 32 * pair);
  }
  return FinishPairs(sums, bytes);
}

REPRISE_HD Hash128 Hash129To240(const uint8_t* in, uint32_t bytes) {
  Hash128 sums = {bytes * kPrime64_1, 0};
  for (uint32_t pair = 0; pair < bytes / 32; ++pair) {
    if (pair == 4) sums = {Avalanche(sums.low), Avalanche(sums.high)};
    MixPair(sums, in + 32 * pair, in + 32 * pair + 16, pair < 4 ? 32 * pair : 3 + 32 * (pair - 4));
  }
  if (bytes < 160) sums = {Avalanche(sums.low), Avalanche(sums.high)};  // there was no fifth pair
  MixPair(sums, in + bytes - 16, in + bytes - 32, 136 - 17 - 16);
  return FinishPairs(sums, bytes);
}

// REQUIRES: 1 <= bytes <= kShortBytesMax.
REPRISE_HD Hash128 HashShort(const uint8_t* in, uint32_t bytes) {
  if (bytes <= 3) return Hash1To3(in, bytes);
  if (bytes <= 8) return Hash4To8(in, bytes);
  if (bytes <= 16) return Hash9To16(in, bytes);
  if (bytes <= 128) return Hash17To128(in, bytes);
  return Hash129To240(in, bytes);
}

// ---- Longer inputs, by a quad

// The two sums of thread `p` (0 to 3) of a quad.
struct QuadSums {
  uint64_t even;
  uint64_t odd;
};

struct Pair64 {
  uint64_t even;
  uint64_t odd;
};

REPRISE_HD QuadSums StartQuad(uint32_t p) {
  if (p == 0) return {kPrime32_3, kPrime64_1};
  if (p == 1) return {kPrime64_2, kPrime64_3};
  if (p == 2) return {kPrime64_4, kPrime32_2};
  return {kPrime64_5, kPrime32_1};
}

REPRISE_HD uint64_t MultiplyHalves(uint64_t x) {
  return static_cast<uint64_t>(static_cast<uint32_t>(x)) * static_cast<uint32_t>(x >> 32);
}

// This thread's 16 bytes of one stripe.
REPRISE_HD void Accumulate(QuadSums& sums, const Pair64& data, uint64_t secret_even,
                           uint64_t secret_odd) {
  sums.even += data.odd + MultiplyHalves(data.even ^ secret_even);
  sums.odd += data.even + MultiplyHalves(data.odd ^ secret_odd);
}

REPRISE_HD uint64_t ScrambleOne(uint64_t sum, uint64_t secret) {
  return (sum ^ sum >> 47 ^ secret) * kPrime32_1;
}

REPRISE_HD void Scramble(QuadSums& sums, uint32_t p) {
  sums.even = ScrambleOne(sums.even, SecretWord(16 + 2 * p));
  sums.odd = ScrambleOne(sums.odd, SecretWord(17 + 2 * p));
}

// All of thread p's share of the input. `load(offset)` gives the 16 bytes at that offset as a
// Pair64; offsets are multiples of 16, but for the last stripe's when `bytes` is none. kLoads of
// them are asked for before the first is used (a divisor of 16).
template <uint32_t kLoads, typename Load>
REPRISE_HD QuadSums SumQuad(const Load& load, uint64_t bytes, uint32_t p) {
  static_assert(kStripesPerRound % kLoads == 0, "a round is whole batches of loads");
  QuadSums sums = StartQuad(p);
  // In registers: the threads of a warp want different words of it, which constant memory gives one
  // by one.
  uint64_t secret[kStripesPerRound + 1];
  REPRISE_UNROLL
  for (uint32_t i = 0; i <= kStripesPerRound; ++i) secret[i] = SecretWord(i + 2 * p);
  uint64_t at = 16 * p;
  for (uint64_t round = (bytes - 1) / kRoundBytes; round > 0; --round) {
    REPRISE_UNROLL
    for (uint32_t stripe = 0; stripe < kStripesPerRound; stripe += kLoads) {
      Pair64 data[kLoads];
      REPRISE_UNROLL
      for (uint32_t i = 0; i < kLoads; ++i) data[i] = load(at + kStripeBytes * (stripe + i));
      REPRISE_UNROLL
      for (uint32_t i = 0; i < kLoads; ++i) {
        Accumulate(sums, data[i], secret[stripe + i], secret[stripe + i + 1]);
      }
    }
    Scramble(sums, p);
    at += kRoundBytes;
  }
  const auto stripes = static_cast<uint32_t>((bytes - 1) % kRoundBytes / kStripeBytes);
  for (uint32_t stripe = 0; stripe < stripes; ++stripe) {
    Accumulate(sums, load(at + kStripeBytes * stripe), SecretWord(stripe + 2 * p),
               SecretWord(stripe + 2 * p + 1));
  }
  Accumulate(sums, load(bytes - kStripeBytes + 16 * p), SecretAt(121 + 16 * p),
             SecretAt(129 + 16 * p));
  return sums;
}

// What thread p adds to the low and to the high half; the four threads' sums go to FinishLong.
REPRISE_HD Hash128 QuadTerms(const QuadSums& sums, uint32_t p) {
  return {MultiplyFold(sums.even ^ SecretAt(11 + 16 * p), sums.odd ^ SecretAt(19 + 16 * p)),
          MultiplyFold(sums.even ^ SecretAt(117 + 16 * p), sums.odd ^ SecretAt(125 + 16 * p))};
}

REPRISE_HD Hash128 FinishLong(uint64_t low_terms, uint64_t high_terms, uint64_t bytes) {
  return {Avalanche(low_terms + bytes * kPrime64_1), Avalanche(high_terms + ~(bytes * kPrime64_2))};
}

// XXH128's canonical form: big-endian, high half first. `digest` is 8-byte aligned.
REPRISE_HD void StoreCanonical(const Hash128& hash, uint8_t* digest) {
  auto* words = reinterpret_cast<uint64_t*>(digest);
  words[0] = ByteSwap64(hash.high);
  words[1] = ByteSwap64(hash.low);
}

}  // namespace reprise::kernels::xxh3
