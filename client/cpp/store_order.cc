#include "client/cpp/store_order.h"

namespace reprise::client {

std::shared_ptr<StoreOrder::Ticket> StoreOrder::Enter(std::span<const BlockKey> keys,
                                                      uint32_t first) {
  absl::MutexLock lock(&mu_);
  const uint64_t number = ++last_;
  Entry& entry = entries_[number];
  if (first > 0 && first <= keys.size()) {
    const auto parent = writer_.find(keys[first - 1]);
    if (parent != writer_.end()) entry.waits_for = parent->second;
  }
  if (first < keys.size()) entry.keys.assign(keys.begin() + first, keys.end());
  for (const BlockKey& key : entry.keys) writer_[key] = number;
  return std::shared_ptr<Ticket>(new Ticket(*this, number));
}

absl::Status StoreOrder::Ticket::Wait(absl::Time deadline) {
  absl::MutexLock lock(&order_.mu_);
  struct Earlier {
    StoreOrder& order;
    uint64_t number;
  } earlier{order_, order_.entries_[number_].waits_for};
  const bool over = order_.mu_.AwaitWithDeadline(
      absl::Condition(
          +[](Earlier* e) ABSL_NO_THREAD_SAFETY_ANALYSIS { return e->order.Over(e->number); },
          &earlier),
      deadline);
  return over
             ? absl::OkStatus()
             : absl::DeadlineExceededError("an earlier store of the parent blocks is not over yet");
}

StoreOrder::Ticket::~Ticket() {
  absl::MutexLock lock(&order_.mu_);
  const auto entry = order_.entries_.find(number_);
  for (const BlockKey& key : entry->second.keys) {
    const auto writer = order_.writer_.find(key);
    if (writer != order_.writer_.end() && writer->second == number_) order_.writer_.erase(writer);
  }
  order_.entries_.erase(entry);
}

}  // namespace reprise::client
