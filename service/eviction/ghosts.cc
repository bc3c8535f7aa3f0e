#include "service/eviction/ghosts.h"

#include <algorithm>

namespace reprise::shard {

void Ghosts::Add(uint64_t key, const Ghost& ghost) {
  ghosts_[key] = Entry{.ghost = ghost, .turn = next_turn_};
  turns_.emplace_back(next_turn_++, key);
  if (turns_.size() > kTurnsPerGhostMax * ghosts_.size() + kTurnsSpare) DropStaleTurns();
}

std::optional<Ghost> Ghosts::Take(uint64_t key) {
  const auto it = ghosts_.find(key);
  if (it == ghosts_.end()) return std::nullopt;
  const Ghost ghost = it->second.ghost;
  ghosts_.erase(it);
  return ghost;
}

std::optional<Ghost> Ghosts::TakeOldest() {
  while (!turns_.empty()) {
    const auto [turn, key] = turns_.front();
    turns_.pop_front();
    if (IsCurrent(turn, key)) return Take(key);
  }
  return std::nullopt;
}

bool Ghosts::IsCurrent(uint64_t turn, uint64_t key) const {
  const auto it = ghosts_.find(key);
  return it != ghosts_.end() && it->second.turn == turn;
}

// Where most are taken before their turn, the turns would pile up.
void Ghosts::DropStaleTurns() {
  std::erase_if(turns_,
                [this](const auto& entry) { return !IsCurrent(entry.first, entry.second); });
}

}  // namespace reprise::shard
