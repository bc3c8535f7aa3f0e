#include "service/eviction/ghosts.h"

namespace reprise::shard {

void Ghosts::Add(uint64_t key, const Ghost& ghost) {
  ghosts_[key] = Entry{.ghost = ghost, .turn = next_turn_};
  turns_.emplace_back(next_turn_++, key);
}

std::optional<Ghost> Ghosts::Take(uint64_t key) {
  const auto it = ghosts_.find(key);
  if (it == ghosts_.end()) return std::nullopt;
  const Ghost ghost = it->second.ghost;
  ghosts_.erase(it);
  // Where many are taken, their turns must not pile up.
  while (!turns_.empty() && !ghosts_.contains(turns_.front().second)) turns_.pop_front();
  return ghost;
}

std::optional<Ghost> Ghosts::TakeOldest() {
  while (!turns_.empty()) {
    const auto [turn, key] = turns_.front();
    turns_.pop_front();
    const auto it = ghosts_.find(key);
    if (it == ghosts_.end() || it->second.turn != turn) continue;
    const Ghost ghost = it->second.ghost;
    ghosts_.erase(it);
    return ghost;
  }
  return std::nullopt;
}

}  // namespace reprise::shard
