// S3-FIFO (Yang et al., SOSP 2023), with what served chats best of the settings that were tried: a
// small queue of 30 % and five times as many ghosts as blocks.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace reprise::bench {

class S3FifoCache {
 public:
  explicit S3FifoCache(size_t blocks_max)
      : blocks_max_(blocks_max), small_max_(blocks_max * 3 / 10), ghosts_max_(5 * blocks_max) {}

  // The stored prefix of `blocks`; then all of them are used or stored, from the last.
  size_t Serve(std::span<const uint64_t> blocks) {
    size_t run = 0;
    while (run < blocks.size() && stored_.contains(blocks[run])) ++run;
    for (size_t i = blocks.size(); i-- > 0;) UseOrStore(blocks[i]);
    return run;
  }

 private:
  static constexpr uint8_t kUsesMax = 3;

  void UseOrStore(uint64_t key) {
    const auto [it, fresh] = stored_.try_emplace(key, uint8_t{0});
    if (!fresh) {
      it->second = std::min<uint8_t>(it->second + 1, kUsesMax);
      return;
    }
    (ghosts_.erase(key) > 0 ? main_ : small_).push_back(key);
    while (stored_.size() > blocks_max_) {
      if (small_.size() > small_max_ || main_.empty()) {
        EvictFromSmall();
      } else {
        EvictFromMain();
      }
    }
  }

  // What was used meanwhile goes on to the main queue.
  void EvictFromSmall() {
    const uint64_t key = small_.front();
    small_.pop_front();
    uint8_t& uses = stored_.at(key);
    if (uses > 0) {
      uses = 0;
      main_.push_back(key);
      return;
    }
    stored_.erase(key);
    ghosts_[key] = ++turn_;
    ghost_order_.emplace_back(turn_, key);
    while (ghosts_.size() > ghosts_max_) {
      const auto [turn, oldest] = ghost_order_.front();
      ghost_order_.pop_front();
      const auto it = ghosts_.find(oldest);
      if (it != ghosts_.end() && it->second == turn) ghosts_.erase(it);
    }
  }

  // What was used meanwhile gets another turn.
  void EvictFromMain() {
    const uint64_t key = main_.front();
    main_.pop_front();
    uint8_t& uses = stored_.at(key);
    if (uses > 0) {
      --uses;
      main_.push_back(key);
    } else {
      stored_.erase(key);
    }
  }

  const size_t blocks_max_;
  const size_t small_max_;
  const size_t ghosts_max_;
  absl::flat_hash_map<uint64_t, uint8_t> stored_;  // uses since it came into its queue
  std::deque<uint64_t> small_;                     // oldest first, as all of these
  std::deque<uint64_t> main_;
  absl::flat_hash_map<uint64_t, uint64_t> ghosts_;         // turn, by key
  std::deque<std::pair<uint64_t, uint64_t>> ghost_order_;  // (turn, key); some are gone
  uint64_t turn_ = 0;
};

}  // namespace reprise::bench
