// How many NCCL links a process may have at once, over all of its lanes: each costs a thread,
// device memory and NCCL's own buffers.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace reprise::lanes {

class LinkCap : public std::enable_shared_from_this<LinkCap> {
 public:
  static std::shared_ptr<LinkCap> Create(size_t links_max) {
    return std::shared_ptr<LinkCap>(new LinkCap(links_max));
  }

  // The right to one link while it lives; nullptr when there are as many as there may be.
  std::shared_ptr<const void> Take() {
    if (links_.fetch_add(1, std::memory_order_relaxed) >= links_max_) {
      links_.fetch_sub(1, std::memory_order_relaxed);
      return nullptr;
    }
    return std::shared_ptr<const void>(this, [self = shared_from_this()](const void*) {
      self->links_.fetch_sub(1, std::memory_order_relaxed);
    });
  }
  // One of them failed. Counted, and nothing else.
  void NoteFailure() { failures_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }
  size_t links() const { return links_.load(std::memory_order_relaxed); }
  size_t links_max() const { return links_max_; }

 private:
  explicit LinkCap(size_t links_max) : links_max_(links_max) {}

  const size_t links_max_;
  std::atomic<size_t> links_{0};
  std::atomic<uint64_t> failures_{0};
};

}  // namespace reprise::lanes
