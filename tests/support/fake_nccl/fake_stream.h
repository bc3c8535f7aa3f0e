// What the fake libnccl takes for a cudaStream_t: counts the groups that were given to it and are
// not done.
#pragma once

#include <atomic>

namespace reprise::testing {

struct FakeStream {
  std::atomic<int> groups_in_flight{0};
};

}  // namespace reprise::testing
