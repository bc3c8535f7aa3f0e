#include "service/pool/file_cipher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/support/sanitizers.h"

namespace reprise::shard {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kPiece = FileCipher::kPieceBytes;
constexpr size_t kUnit = FileCipher::kUnitBytes;

Bytes Unhex(const std::string& hex) {
  const std::string bytes = absl::HexStringToBytes(hex);
  return {bytes.begin(), bytes.end()};
}

FileCipher::Key KeyOf(const Bytes& bytes) {
  FileCipher::Key key;
  EXPECT_EQ(bytes.size(), key.size());
  std::copy(bytes.begin(), bytes.end(), key.begin());
  return key;
}

Bytes Encrypted(const FileCipher& cipher, uint64_t offset, std::span<const uint8_t> from) {
  Bytes to(from.size());
  cipher.Encrypt(offset, from, to);
  return to;
}

Bytes Noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes noise(bytes);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
  return noise;
}

struct KnownAnswer {
  const char* source;
  uint64_t unit;
  const char* key;
  const char* plaintext;
  const char* ciphertext;
};

// A piece does not depend on what comes after it in its unit: the beginning of a longer unit.
constexpr KnownAnswer kKnownAnswers[] = {
    {"NIST CAVP, XTSTestVectors.zip, data unit seq no, XTSGenAES256.rsp, 256 bits", 187,
     "ef010ca1a3663e32534349bc0bae62232a1573348568fb9ef41768a7674f507a"
     "727f98755397d0e0aa32f830338cc7a926c773f09e57b357cd156afbca46e1a0",
     "ed98e01770a853b49db9e6aaf88f0a41b9b56e91a5a2b11d40529254f5523e75",
     "ca20c55e8dc149687d2541de39c3df6300bb5a163c10ced3666b1357db8bd39d"},
    {"NIST CAVP, XTSTestVectors.zip, data unit seq no, XTSGenAES256.rsp, 384 bits", 39,
     "87dc84c8b403b8588a4c9fa5d70a0e9fd34a1c8994c6fd4f20589a1b226a4d12"
     "91c03a8cd06edb0243693b382810cdc41ba06380c72b4adf22e0f86c81ee7235",
     "e859c05a755299db2dc4ef8bfb6ad4e46f30887365ec8a5cac916fa18bb4ef64"
     "fe0c52365e267baf8cf2b77a97ffa002",
     "ba68c1e2bb95799272dfb7b7ca23306daddb6e67144c5f2f82586229e798ffdf"
     "12f7382ce2191886e6eb172ed570f700"},
    {"IEEE 1619-2007, Annex B, vector 10 (NIST SP 800-38E refers to them)", 0xff,
     "2718281828459045235360287471352662497757247093699959574966967627"
     "3141592653589793238462643383279502884197169399375105820974944592",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
     "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
     "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
     "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
     "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
     "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
     "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
     "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
     "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
     "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
     "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
     "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
     "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
     "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
     "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
     "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
     "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
     "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
     "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
     "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
     "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
     "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
     "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
     "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
     "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
     "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
     "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
     "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
     "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"},
};

TEST(FileCipherTest, GivesThePublishedAnswers) {
  for (const KnownAnswer& known : kKnownAnswers) {
    SCOPED_TRACE(known.source);
    const auto cipher = *FileCipher::WithKey(KeyOf(Unhex(known.key)));
    const Bytes plaintext = Unhex(known.plaintext);
    Bytes bytes = Encrypted(*cipher, known.unit * kUnit, plaintext);
    EXPECT_EQ(bytes, Unhex(known.ciphertext));
    cipher->Decrypt(known.unit * kUnit, bytes);
    EXPECT_EQ(bytes, plaintext);
  }
}

TEST(FileCipherTest, APartOfARangeIsEncipheredAsInTheWhole) {
  const auto cipher = *FileCipher::Create();
  constexpr uint64_t kStart = (uint64_t{1} << 45) - 2 * kUnit;  // within 32 TiB and beyond
  const Bytes plaintext = Noise(5 * kUnit, 1);
  const Bytes whole = Encrypted(*cipher, kStart, plaintext);
  constexpr uint32_t kSeed = 20260817;
  std::mt19937 random(kSeed);
  for (int i = 0; i < 500; ++i) {
    const size_t first = random() % (plaintext.size() / kPiece);
    const size_t pieces = 1 + random() % (plaintext.size() / kPiece - first);
    const size_t at = first * kPiece, bytes = pieces * kPiece;
    SCOPED_TRACE(absl::StrCat("seed ", kSeed, ": ", bytes, " bytes at ", at));
    Bytes part = Encrypted(*cipher, kStart + at, std::span(plaintext).subspan(at, bytes));
    ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + at));
    cipher->Decrypt(kStart + at, part);
    ASSERT_TRUE(std::equal(part.begin(), part.end(), plaintext.begin() + at));
  }
}

TEST(FileCipherTest, EqualBytesLookAlikeAtNoTwoPlaces) {
  const auto cipher = *FileCipher::Create();
  const Bytes same = Encrypted(*cipher, 0, Bytes(1 << 20, 7));
  std::set<std::string> pieces;
  for (size_t at = 0; at < same.size(); at += kPiece) {
    pieces.insert({same.begin() + at, same.begin() + at + kPiece});
  }
  EXPECT_EQ(pieces.size(), same.size() / kPiece);
}

TEST(FileCipherTest, EachHasAKeyOfItsOwn) {
  const Bytes plaintext = Noise(kUnit, 2);
  EXPECT_NE(Encrypted(**FileCipher::Create(), 0, plaintext),
            Encrypted(**FileCipher::Create(), 0, plaintext));
}

TEST(FileCipherTest, WhatTheFileHasAsZeroesIsZeroesAndWrittenZeroesAreNone) {
  const auto cipher = *FileCipher::Create();
  const Bytes zeroes(3 * kUnit);
  Bytes file = Encrypted(*cipher, kPiece, zeroes);
  EXPECT_EQ(std::count(file.begin(), file.end(), 0) * 10 / static_cast<int64_t>(file.size()), 0);
  const Bytes text = Noise(3 * kUnit, 3);
  file = Encrypted(*cipher, kPiece, text);
  // Wiped: one piece in the middle of a unit, and from within a unit to the end.
  std::fill_n(file.begin() + 5 * kPiece, kPiece, 0);
  std::fill(file.begin() + 2 * kUnit, file.end(), 0);
  Bytes expected = text;
  std::fill_n(expected.begin() + 5 * kPiece, kPiece, 0);
  std::fill(expected.begin() + 2 * kUnit, expected.end(), 0);
  cipher->Decrypt(kPiece, file);
  EXPECT_EQ(file, expected);
}

TEST(FileCipherTest, ThreadsShareOne) {
  const auto cipher = *FileCipher::Create();
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&cipher, t] {
      const Bytes text = Noise(7 * kPiece + kUnit, t);
      for (uint64_t i = 0; i < 200; ++i) {
        const uint64_t offset = (t * 1000 + i) * kPiece;
        Bytes bytes = Encrypted(*cipher, offset, text);
        cipher->Decrypt(offset, bytes);
        ASSERT_EQ(bytes, text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Mappings of this process whose VmFlags have all of `flags`, e.g. "dd" (not in a core dump) and
// "lo" (locked).
int MappingsWith(const std::vector<std::string>& flags) {
  std::ifstream smaps("/proc/self/smaps");
  int found = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (line.rfind("VmFlags:", 0) != 0) continue;
    line += ' ';
    found += std::all_of(flags.begin(), flags.end(), [&](const std::string& flag) {
      return line.find(" " + flag + " ") != std::string::npos;
    });
  }
  return found;
}

TEST(FileCipherTest, ItsKeyIsInNoCoreDumpAndIsNotSwappedOut) {
  if (reprise::testing::kSanitized) GTEST_SKIP() << "SKIPPED: sanitizers lock no memory";
  std::vector<std::string> flags = {"dd"};
  alignas(kUnit) static uint8_t page[kUnit];
  if (::mlock(page, sizeof(page)) == 0) {
    ::munlock(page, sizeof(page));
    flags.emplace_back("lo");
  } else {
    std::printf("SKIPPED in part: this process may lock no memory\n");
  }
  const int before = MappingsWith(flags);
  auto cipher = *FileCipher::Create();
  EXPECT_EQ(MappingsWith(flags), before + 1);
  cipher.reset();
  EXPECT_EQ(MappingsWith(flags), before);
}

// How often the two halves of the key of NoOnesKey are in this process's memory. It holds none.
uint8_t NoOnesByte(size_t i) {
  return static_cast<uint8_t>((i + 3) * 0x9d ^ 0x5a);
}

int CopiesInMemory() {
  std::ifstream maps("/proc/self/maps");
  const int memory = ::open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  static std::array<uint8_t, 1 << 16> seen;
  int copies = 0;
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0;
    char rights[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, rights) != 3) continue;
    if (rights[1] != 'w') continue;
    for (uint64_t at = begin; at < end; at += seen.size() / 2) {
      OPENSSL_cleanse(seen.data(), seen.size());
      const ssize_t got =
          ::pread(memory, seen.data(), std::min(seen.size(), end - at), static_cast<off_t>(at));
      for (ssize_t i = 0; i + 32 <= got && i < static_cast<ssize_t>(seen.size() / 2); ++i) {
        for (const size_t half : {0, 32}) {
          size_t same = 0;
          while (same < 32 && seen[i + same] == NoOnesByte(half + same)) ++same;
          copies += same == 32;
        }
      }
    }
  }
  OPENSSL_cleanse(seen.data(), seen.size());
  ::close(memory);
  return copies;
}

TEST(FileCipherTest, NothingIsLeftOfItsKeyButItsPageAndThenNothing) {
  if (reprise::testing::kSanitized) GTEST_SKIP() << "SKIPPED: a sanitizer's memory is too much";
  FileCipher::Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = NoOnesByte(i);
  auto cipher = *FileCipher::WithKey(key);
  OPENSSL_cleanse(key.data(), key.size());
  Bytes bytes = Encrypted(*cipher, kPiece, Noise(1 << 20, 4));
  cipher->Decrypt(kPiece, bytes);
  EXPECT_EQ(CopiesInMemory(), 2) << "of both halves one";
  cipher.reset();
  EXPECT_EQ(CopiesInMemory(), 0);
}

}  // namespace
}  // namespace reprise::shard
