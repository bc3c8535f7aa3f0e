// Ends of a lane in GPU memory, as their tests set them up.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "client/cpp/device_sink.h"
#include "client/cpp/device_source.h"
#include "tests/unit/client/cpp/device_engine.h"

namespace reprise::client::testing {

inline constexpr size_t kThreads = 2;

inline BlockTransfer TransferOf(const CallerMemory& memory, const BlockLayout& layout) {
  return {.memory = &memory,
          .layout = &layout,
          .staging = nullptr,
          .first = 0,
          .deadline = absl::Now() + absl::Minutes(1)};
}

inline std::vector<uint32_t> Count(uint32_t blocks) {
  std::vector<uint32_t> all(blocks);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// What a sink was given, and what it said of it.
struct Delivery {
  std::vector<uint32_t> verified;
  std::vector<uint32_t> placed;
  DeviceSink::Callbacks Callbacks() {
    return {[this](uint32_t i) {
              verified.push_back(i);
              return absl::OkStatus();
            },
            [this](uint32_t i) { placed.push_back(i); }};
  }
};

}  // namespace reprise::client::testing
