// How long calls took and how they ended: one histogram per method and status code.
//
// Invariants: the methods are given once, so that no caller adds a label; what is called otherwise
// counts as "other". A sum and its buckets may be a call apart while one ends.
//
// Thread safety: all methods may be called from any thread; Ended takes no lock and does not
// allocate.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "service/telemetry/metric_family.h"

namespace reprise::telemetry {

// Upper bounds in seconds: from a look into the index to a stream of gigabytes.
inline constexpr std::array<double, 14> kRpcBounds = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 60};

class RpcDurations {
 public:
  // As the wire names them: "reprise.v1.ShardService/Lookup".
  explicit RpcDurations(std::span<const std::string> methods);
  RpcDurations(const RpcDurations&) = delete;
  RpcDurations& operator=(const RpcDurations&) = delete;

  void Ended(absl::string_view method, absl::StatusCode code, absl::Duration took);

  // reprise_rpc_server_duration_seconds{method,code}: OK of every method from the start, another
  // code once it was answered.
  Family ToFamily() const;

 private:
  static constexpr size_t kCodes = 17;  // of gRPC, OK included
  struct Cell {
    std::array<std::atomic<uint64_t>, kRpcBounds.size() + 1> counts{};
    std::atomic<uint64_t> sum_ns{0};
  };
  using Row = std::array<Cell, kCodes>;

  absl::flat_hash_map<std::string, size_t> rows_of_;  // by method
  std::vector<std::string> methods_;                  // by row; the last one: other
  std::unique_ptr<Row[]> rows_;
};

}  // namespace reprise::telemetry
