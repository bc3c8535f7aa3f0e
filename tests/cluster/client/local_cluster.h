// `reprise up` as a test's own cluster: a router and shards as processes, which the test may kill,
// stop and continue.
//
// Thread safety: one thread.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cluster/placement/placement.h"
#include "nlohmann/json.hpp"
#include "proto/types/status_macros.h"
#include "tests/support/process.h"

namespace reprise::client::testing {

struct ShardProcess {
  std::string id;
  std::string address;
  pid_t pid = 0;
};

class LocalCluster {
 public:
  // Fails the test when it does not come up.
  explicit LocalCluster(int shards = 3, const std::string& dram = "64MiB", int replication = 2)
      : up_(std::vector<std::string>{reprise::testing::BinFolder() + "/reprise", "up", "--shards",
                                     absl::StrCat(shards), "--dram", dram, "--replication",
                                     absl::StrCat(replication), "-o", "json"}) {
    const auto line = up_.ReadLine(absl::Minutes(2));
    REPRISE_CHECK(line.has_value());
    const auto json = nlohmann::json::parse(*line);
    router_ = json["router"];
    router_pid_ = json["router_pid"];
    for (const auto& shard : json["shards"])
      shards_.push_back({shard["id"], shard["address"], shard["pid"]});
  }
  ~LocalCluster() {
    for (const ShardProcess& shard : shards_) Signal(shard, SIGCONT);
    up_.Signal(SIGTERM);
    up_.Wait(absl::Seconds(30));
  }

  const std::string& router() const { return router_; }
  pid_t router_pid() const { return router_pid_; }
  const std::vector<ShardProcess>& shards() const { return shards_; }
  reprise::testing::Process& up() { return up_; }

  // The shard at `rank` in the session's placement order: 0 is home, 1 keeps the replica.
  const ShardProcess& Placed(const std::string& session, size_t rank) const {
    std::vector<ShardId> ids;
    for (const ShardProcess& shard : shards_) ids.push_back(ShardId{shard.id});
    const ShardId id = cluster::PlacementOrder(session, ids)[rank];
    return *std::find_if(shards_.begin(), shards_.end(),
                         [&](const ShardProcess& shard) { return shard.id == id.name; });
  }

  // Only pids that our own `up` told us.
  static void Signal(const ShardProcess& shard, int signal) { kill(shard.pid, signal); }

  // Flips one byte of `bytes` wherever the shard keeps them in its pool. Returns how many places
  // there were.
  static int FlipStored(const ShardProcess& shard, std::span<const uint8_t> bytes) {
    int flipped = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(absl::StrCat("/proc/", shard.pid, "/fd"))) {
      std::error_code error;
      const std::string target = std::filesystem::read_symlink(entry.path(), error);
      if (error || target.find("memfd:") == std::string::npos) continue;
      const int file = open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
      struct stat about = {};
      if (file < 0 || fstat(file, &about) != 0 || about.st_size == 0) continue;
      const auto size = static_cast<size_t>(about.st_size);
      void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      close(file);
      if (memory == MAP_FAILED) continue;
      if (void* at = memmem(memory, size, bytes.data(), bytes.size()); at != nullptr) {
        static_cast<uint8_t*>(at)[bytes.size() / 2] ^= 1;
        ++flipped;
      }
      munmap(memory, size);
    }
    return flipped;
  }

 private:
  reprise::testing::Process up_;
  std::string router_;
  pid_t router_pid_ = 0;
  std::vector<ShardProcess> shards_;
};

}  // namespace reprise::client::testing
