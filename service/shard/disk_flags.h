// The flags of a shard's disk tier, and what is said of it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "service/pool/file_cipher.h"
#include "service/shard/shard_engine.h"

namespace reprise::shard {

struct DiskFlags {
  uint64_t bytes = 0;  // 0: no disk
  std::string folder;
  DiskCipher cipher = DiskCipher::kAes256;
  bool keep = false;
  std::string key_path;

  void AddTo(CLI::App& app);
  // INVALID_ARGUMENT when they contradict each other, or the key cannot be read.
  absl::Status AddTo(ShardEngineOptions& options) const;
  // A sentence for the log.
  std::string Summary() const;
};

// What became of what the last process left on the disk: sentences for the log.
std::string RestoredSummary(const KeptDiskUse& use);

}  // namespace reprise::shard
