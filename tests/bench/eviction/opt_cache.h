// What no order of eviction can beat: one that knows all requests beforehand and drops what is used
// again last (Belady, IBM Systems Journal 1966).
//
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <tuple>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "service/sizing/trace.h"

namespace reprise::bench {

class OptCache {
 public:
  // Serves the requests of `trace`, in their order.
  OptCache(const sizing::Trace& trace, size_t blocks_max)
      : blocks_max_(blocks_max), next_uses_(trace.requests.size()) {
    absl::flat_hash_map<uint64_t, size_t> next;
    for (size_t request = trace.requests.size(); request-- > 0;) {
      for (const uint64_t key : trace.requests[request].blocks) {
        const auto [it, fresh] = next.try_emplace(key, kNever);
        next_uses_[request].push_back(it->second);
        it->second = request;
      }
    }
  }

  // The stored prefix of `blocks`, which are the next request's.
  size_t Serve(std::span<const uint64_t> blocks) {
    size_t run = 0;
    while (run < blocks.size() && stored_.contains(blocks[run])) ++run;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Turn turn = {next_uses_[request_][i], i, blocks[i]};
      const auto [it, fresh] = stored_.try_emplace(blocks[i], turn);
      if (!fresh) turns_.erase(it->second);
      it->second = turn;
      turns_.insert(turn);
    }
    while (turns_.size() > blocks_max_) {
      const auto last = std::prev(turns_.end());
      stored_.erase(std::get<2>(*last));
      turns_.erase(last);
    }
    ++request_;
    return run;
  }

 private:
  static constexpr size_t kNever = std::numeric_limits<size_t>::max();
  // Request that uses it next, place in the prompt, key: of one prompt's, the last one goes first.
  using Turn = std::tuple<size_t, size_t, uint64_t>;

  const size_t blocks_max_;
  std::vector<std::vector<size_t>> next_uses_;  // by request and block of it
  size_t request_ = 0;                          // the next one
  absl::flat_hash_map<uint64_t, Turn> stored_;
  absl::btree_set<Turn> turns_;
};

}  // namespace reprise::bench
