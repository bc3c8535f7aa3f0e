// What is stored, as a feed.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {
namespace {

class EngineWatch final : public BlockWatch {
 public:
  EngineWatch(ShardEngineImpl* engine, std::shared_ptr<WatchQueue> queue)
      : engine_(engine), queue_(std::move(queue)) {}
  ~EngineWatch() override {
    engine_->EndWatch(queue_);
    queue_->StopNotifying();
  }

  absl::StatusOr<std::optional<BlockEvent>> Next(absl::Time deadline) override {
    return queue_->Next(deadline);
  }
  void NotifyWith(std::function<void()> ready) override { queue_->NotifyWith(std::move(ready)); }

 private:
  ShardEngineImpl* const engine_;
  const std::shared_ptr<WatchQueue> queue_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BlockWatch>> ShardEngineImpl::Watch() {
  Locked lock(this);
  if (watchers_.size() >= limits::kWatchersMax) {
    counters_.Add(Counter::kRefusedWatchers);
    return Refusal(absl::StatusCode::kResourceExhausted, "WATCHERS_MAX",
                   absl::StrCat("the shard has kWatchersMax = ", limits::kWatchersMax,
                                " watchers: end one, or ask a router"));
  }
  auto queue = std::make_shared<WatchQueue>(Snapshot(), limits::kWatchQueueEventsMax);
  watchers_.push_back(queue);
  return std::unique_ptr<BlockWatch>(std::make_unique<EngineWatch>(this, std::move(queue)));
}

void ShardEngineImpl::EndWatch(const std::shared_ptr<WatchQueue>& queue) {
  absl::MutexLock lock(&mu_);
  watchers_.erase(std::remove(watchers_.begin(), watchers_.end(), queue), watchers_.end());
}

// Every chain from its first block down, cut into events where it branches, grows too long or
// changes session.
std::vector<BlockEvent> ShardEngineImpl::Snapshot() const {
  std::vector<BlockEvent> events;
  for (const auto& [id, space] : spaces_) {
    for (BlockId root = space->roots; root != kNoBlock; root = blocks_[root].next_sibling) {
      BlockId previous = kNoBlock;
      for (BlockId at = root; at != kNoBlock; at = blocks_.NextBelow(root, at, false)) {
        const BlockRecord& block = blocks_[at];
        const bool goes_on = previous != kNoBlock && block.parent == previous &&
                             events.back().keys.size() < limits::kEventKeysMax &&
                             events.back().session_id == block.chain->session_id &&
                             events.back().tier == pool_->TierOf(block.slot);
        if (!goes_on) {
          events.push_back({.kind = BlockEvent::Kind::kStored,
                            .tenant = space->tenant,
                            .fingerprint = space->fingerprint,
                            .session_id = block.chain->session_id,
                            .tier = pool_->TierOf(block.slot)});
        }
        events.back().keys.push_back(block.key);
        previous = at;
      }
    }
  }
  events.push_back({.kind = BlockEvent::Kind::kSnapshotEnd});
  return events;
}

// Blocks of one chain that were just stored, in prefix order: an event for each piece on one tier.
void ShardEngineImpl::PublishStored(const KeySpace& space, std::span<const BlockId> blocks) {
  for (size_t begin = 0, end = 0; begin < blocks.size(); begin = end) {
    const Tier tier = pool_->TierOf(blocks_[blocks[begin]].slot);
    std::vector<BlockKey> keys;
    for (; end < blocks.size() && pool_->TierOf(blocks_[blocks[end]].slot) == tier; ++end) {
      keys.push_back(blocks_[blocks[end]].key);
    }
    Publish({.space = &space, .tier = tier, .session_id = blocks_[blocks[begin]].chain->session_id},
            keys);
  }
}

void ShardEngineImpl::Publish(const Publication& what, std::span<const BlockKey> keys) {
  for (size_t begin = 0; begin < keys.size() && !watchers_.empty();
       begin += limits::kEventKeysMax) {
    const std::span<const BlockKey> part =
        keys.subspan(begin, std::min(limits::kEventKeysMax, keys.size() - begin));
    const BlockEvent event{.kind = what.kind,
                           .tenant = what.space->tenant,
                           .fingerprint = what.space->fingerprint,
                           .keys = {part.begin(), part.end()},
                           .session_id = what.session_id,
                           .tier = what.tier};
    for (auto watcher = watchers_.begin(); watcher != watchers_.end();) {
      if (to_notify_.empty() ||
          std::find(to_notify_.begin(), to_notify_.end(), *watcher) == to_notify_.end()) {
        to_notify_.push_back(*watcher);
      }
      if ((*watcher)->Push(event)) {
        ++watcher;
        continue;
      }
      counters_.Add(Counter::kCutOffWatchers);
      watcher = watchers_.erase(watcher);
    }
  }
}

void ShardEngineImpl::PublishRemoved() {
  if (removed_keys_.empty()) return;
  const std::vector<BlockKey> keys = std::exchange(removed_keys_, {});
  Publish({.kind = BlockEvent::Kind::kRemoved, .space = &SpaceOf(removed_space_)}, keys);
}

}  // namespace reprise::shard
