// A file that outlives the pools that are made over it, and a key for it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "service/pool/file_pool.h"

namespace reprise::testing {

class KeptTestFile {
 public:
  KeptTestFile() {
    std::string path = (std::filesystem::temp_directory_path() / "kept-file-XXXXXX").string();
    fd_ = ::mkostemp(path.data(), O_CLOEXEC);
    EXPECT_GE(fd_, 0) << path;
    ::unlink(path.c_str());
  }
  ~KeptTestFile() { ::close(fd_); }
  KeptTestFile(const KeptTestFile&) = delete;
  KeptTestFile& operator=(const KeptTestFile&) = delete;

  int fd() const { return fd_; }
  uint64_t bytes() const {
    struct stat file {};
    EXPECT_EQ(::fstat(fd_, &file), 0);
    return static_cast<uint64_t>(file.st_size);
  }
  // For a pool over it; of two keys each with its number.
  shard::FilePoolOptions Options(uint64_t capacity_bytes, shard::DiskCipher cipher,
                                 uint8_t key_number = 1) const {
    shard::FilePoolOptions options{.folder = "the test's folder",
                                   .capacity_bytes = capacity_bytes,
                                   .cipher = cipher,
                                   .kept = shard::KeptFile{.fd = fd_}};
    if (cipher == shard::DiskCipher::kNone) return options;
    shard::FileCipher::Key& key = options.kept->key.emplace();
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i * key_number);
    return options;
  }
  // Noise wherever a pool has anything, as of an earlier process.
  void FillWithNoise(uint64_t bytes) const {
    std::vector<uint8_t> noise(bytes);
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<uint8_t>(1 + i % 255);
    EXPECT_EQ(::pwrite(fd_, noise.data(), noise.size(), 0), static_cast<ssize_t>(noise.size()));
  }

 private:
  int fd_ = -1;
};

}  // namespace reprise::testing
