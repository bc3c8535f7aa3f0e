// The pins that lanes hold on slots. A pin may outlive the engine: the board outlives both and
// keeps the memory mapped, so that a late reader reads stale bytes and never an unmapped page.
//
// Thread safety: all methods may be called from any thread, but a pin must not be dropped by a
// thread that holds the engine's lock.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/shard/block_table.h"

namespace reprise::shard {

// Who is told when pins end.
class PinOwner {
 public:
  virtual ~PinOwner() = default;
  virtual void Unpinned(const std::vector<BlockId>& blocks) = 0;
};

class PinBoard {
 public:
  // REQUIRES: `owner` calls Close before it dies.
  PinBoard(PinOwner* owner, std::shared_ptr<const void> memory)
      : memory_(std::move(memory)), owner_(owner) {}

  // One pin over all of `blocks`; the owner is told when its last copy goes.
  static std::shared_ptr<const void> Pin(std::shared_ptr<PinBoard> board,
                                         std::vector<BlockId> blocks);
  // Nobody is told any more.
  void Close();

 private:
  struct Holder;
  void Drop(const std::vector<BlockId>& blocks);

  const std::shared_ptr<const void> memory_;
  absl::Mutex mu_;
  PinOwner* owner_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::shard
