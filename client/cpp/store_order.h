// Keeps one client's stores in order: a block is stored after its parent, even when both were
// started at once.
//
// Invariants: a store waits only for stores that were started before it, so that stores never wait
// in a circle. Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/block_key.h"

namespace reprise::client {

class StoreOrder {
 public:
  // A store's place in the order; gives it up when it dies.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    // Returns when the earlier stores of this one's parent are over, or DEADLINE_EXCEEDED.
    absl::Status Wait(absl::Time deadline);

   private:
    friend class StoreOrder;
    Ticket(StoreOrder& order, uint64_t number) : order_(order), number_(number) {}
    StoreOrder& order_;
    const uint64_t number_;
  };

  // `keys[first, ...)` are about to be stored. REQUIRES: the order outlives the ticket.
  std::shared_ptr<Ticket> Enter(std::span<const BlockKey> keys, uint32_t first);

 private:
  struct Entry {
    std::vector<BlockKey> keys;  // that it stores
    uint64_t waits_for = 0;      // ticket that stores its parent; 0: none
  };
  bool Over(uint64_t number) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !entries_.contains(number);
  }

  absl::Mutex mu_;
  uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<BlockKey, uint64_t> writer_
      ABSL_GUARDED_BY(mu_);  // the latest ticket for each key
};

}  // namespace reprise::client
