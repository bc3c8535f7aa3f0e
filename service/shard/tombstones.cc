#include "service/shard/tombstones.h"

namespace reprise::shard {

bool IsEviction(DropCause cause) {
  return cause == DropCause::kWatermark || cause == DropCause::kOwnSpace ||
         cause == DropCause::kReclaim || cause == DropCause::kQuota;
}

void Tombstones::Add(const SpaceKey& key, Tombstone tombstone) {
  const uint64_t number = next_number_++;
  stones_[key] = Stone{std::move(tombstone), number};
  order_.emplace_back(number, key);
  while (order_.size() > max_) {
    const auto oldest = stones_.find(order_.front().second);
    if (oldest != stones_.end() && oldest->second.number == order_.front().first)
      stones_.erase(oldest);
    order_.pop_front();
  }
}

const Tombstone* Tombstones::Find(const SpaceKey& key) const {
  const auto it = stones_.find(key);
  return it == stones_.end() ? nullptr : &it->second.tombstone;
}

}  // namespace reprise::shard
