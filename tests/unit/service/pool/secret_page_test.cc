#include "service/pool/secret_page.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>

namespace reprise::shard {
namespace {

// What the kernel says of the mapping that `address` lies in: "VmFlags: rd wr ... dd".
std::string FlagsOf(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long first = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &end) == 2) inside = at >= first && at < end;
    if (inside && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

TEST(SecretPage, IsAsLongAsAskedAndZeroesAtFirst) {
  const auto page = SecretPage::Create(5000);
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(page->bytes().size(), 5000u);
  EXPECT_EQ(std::count(page->bytes().begin(), page->bytes().end(), 0), 5000);
}

TEST(SecretPage, KeepsWhatIsWrittenApartFromOthers) {
  const auto one = SecretPage::Create(64), other = SecretPage::Create(64);
  std::fill(one->bytes().begin(), one->bytes().end(), 1);
  std::fill(other->bytes().begin(), other->bytes().end(), 2);
  EXPECT_EQ(std::count(one->bytes().begin(), one->bytes().end(), 1), 64);
  const auto page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one->bytes().data()) % page_bytes, 0u);
  EXPECT_NE(one->bytes().data(), other->bytes().data());
}

TEST(SecretPage, NoCoreDumpHasIt) {
  const auto page = SecretPage::Create(64);
  page->bytes()[0] = 1;
  const std::string flags = FlagsOf(page->bytes().data());
  ASSERT_NE(flags, "");
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
  EXPECT_EQ(FlagsOf(&flags).find(" dd "), std::string::npos) << "other memory is dumped";
}

TEST(SecretPage, NoMemoryIsNoPage) {
  EXPECT_EQ(SecretPage::Create(size_t{1} << 60), nullptr);
  EXPECT_EQ(errno, ENOMEM);
}

TEST(SecretPageDeathTest, NoBytesAreNoSecret) {
  EXPECT_DEATH(SecretPage::Create(0), "CHECK failed");
}

}  // namespace
}  // namespace reprise::shard
