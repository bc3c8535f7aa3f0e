// The half of RouterEngine that learns: members, feeds, states.
#include <algorithm>
#include <utility>

#include "proto/types/status_macros.h"
#include "service/router/router_engine.h"

namespace reprise::router {

using cluster::ShardState;

RouterEngine::RouterEngine(RouterEngineOptions options)
    : epoch_(options.first_epoch),
      detector_(options.detector),
      index_(options.index_blocks_max),
      sessions_(options.sessions) {}

void RouterEngine::SetMembers(std::span<const cluster::Member> members, absl::Time now) {
  absl::MutexLock lock(&mu_);
  bool changed = false;
  std::map<ShardId, const cluster::Member*> wanted;
  for (const cluster::Member& member : members) wanted.emplace(member.id, &member);
  REPRISE_CHECK(wanted.size() == members.size() && members.size() <= limits::kShardsMax);
  for (auto it = shards_.begin(); it != shards_.end();) {
    if (wanted.contains(it->first)) {
      ++it;
      continue;
    }
    DropContents(it->second);
    by_serial_.erase(it->second.serial);
    detector_.Forget(it->first);
    it = shards_.erase(it);
    changed = true;
  }
  for (const auto& [id, member] : wanted) {
    const auto [it, fresh] = shards_.try_emplace(id);
    Shard& shard = it->second;
    if (fresh) {
      shard.serial = ShardSerial(++serials_given_);
      by_serial_.emplace(shard.serial, &shard);
    }
    changed |= fresh || shard.member != *member;
    shard.member = *member;
  }
  if (changed) epoch_ = Epoch(epoch_.value + 1);
  for (auto& [id, shard] : shards_) NoteState(shard, now);
}

FeedId RouterEngine::BeginFeed(const ShardId& id) {
  absl::MutexLock lock(&mu_);
  const auto it = shards_.find(id);
  if (it == shards_.end()) return FeedId();
  Shard& shard = it->second;
  feeds_.erase(shard.feed);
  shard.feed = FeedId(++feeds_begun_);
  feeds_.emplace(shard.feed, id);
  shard.last_sequence = 0;
  ++shard.feeds;
  // Of two halves of snapshots the older one is of no use. A complete one stays on offer.
  if (shard.incoming.has_value()) {
    by_stream_[*shard.incoming] = nullptr;
    index_.RetireStream(*shard.incoming);
  }
  shard.incoming = index_.OpenStream();
  if (by_stream_.size() <= *shard.incoming) by_stream_.resize(*shard.incoming + 1, nullptr);
  by_stream_[*shard.incoming] = &shard;
  return shard.feed;
}

RouterEngine::Shard* RouterEngine::ShardOf(FeedId feed) {
  const auto it = feeds_.find(feed);
  return it == feeds_.end() ? nullptr : &shards_.find(it->second)->second;
}

RouterEngine::Shard* RouterEngine::Accept(FeedId feed, uint64_t sequence, absl::Time now) {
  Shard* shard = ShardOf(feed);
  if (shard == nullptr) return nullptr;
  if (sequence == 0 || (shard->last_sequence != 0 && sequence != shard->last_sequence + 1)) {
    feeds_.erase(feed);
    shard->feed = FeedId();
    counts_.feed_gaps.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  shard->last_sequence = sequence;
  detector_.Heartbeat(shard->member.id, now);
  return shard;
}

FeedResult RouterEngine::Apply(FeedId feed, uint64_t sequence, const BlockEvent& event,
                               absl::Time now) {
  std::span<const BlockKey> keys = event.keys;
  {
    absl::MutexLock lock(&mu_);
    Shard* shard = Accept(feed, sequence, now);
    if (shard == nullptr) return FeedResult::kOver;
    if (event.kind == BlockEvent::Kind::kSnapshotEnd) {
      EndSnapshot(*shard);
    } else if (event.kind == BlockEvent::Kind::kStored && !event.session_id.empty()) {
      NoteSession(*shard, event, now);
    }
    NoteState(*shard, now);
  }
  // A long chain is taken in parts, so that questions wait for a few microseconds at most.
  while (!keys.empty()) {
    const size_t part = std::min(keys.size(), limits::kRouterApplyKeys);
    absl::MutexLock lock(&mu_);
    Shard* shard = ShardOf(feed);
    if (shard == nullptr) return FeedResult::kOver;
    // A chain leaves from its end, so that what is on offer never has a hole.
    const bool removed = event.kind == BlockEvent::Kind::kRemoved;
    ApplyKeys(*shard, event, removed ? keys.last(part) : keys.first(part));
    keys = removed ? keys.first(keys.size() - part) : keys.subspan(part);
  }
  return FeedResult::kApplied;
}

FeedResult RouterEngine::Apply(FeedId feed, uint64_t sequence, const ShardHeartbeat& heartbeat,
                               absl::Time now) {
  absl::MutexLock lock(&mu_);
  Shard* shard = Accept(feed, sequence, now);
  if (shard == nullptr) return FeedResult::kOver;
  shard->heartbeat = heartbeat;
  NoteState(*shard, now);
  return FeedResult::kApplied;
}

void RouterEngine::ApplyKeys(Shard& shard, const BlockEvent& event,
                             std::span<const BlockKey> keys) {
  const KeySpace space = {event.tenant, event.fingerprint};
  if (event.kind == BlockEvent::Kind::kStored) {
    index_.Store(shard.incoming.has_value() ? *shard.incoming : *shard.complete, space, keys,
                 event.tier);
  } else if (event.kind == BlockEvent::Kind::kRemoved) {
    if (shard.incoming.has_value()) index_.Remove(*shard.incoming, space, keys);
    if (shard.complete.has_value()) index_.Remove(*shard.complete, space, keys);
  }
}

void RouterEngine::EndSnapshot(Shard& shard) {
  if (!shard.incoming.has_value()) return;
  if (shard.complete.has_value()) {
    by_stream_[*shard.complete] = nullptr;
    index_.RetireStream(*shard.complete);
  }
  shard.complete = std::exchange(shard.incoming, std::nullopt);
}

void RouterEngine::DropContents(Shard& shard) {
  for (std::optional<StreamIndex>* stream : {&shard.complete, &shard.incoming}) {
    if (!stream->has_value()) continue;
    by_stream_[**stream] = nullptr;
    index_.RetireStream(**stream);
    stream->reset();
  }
  feeds_.erase(shard.feed);
  shard.feed = FeedId();
}

// Events of owner and replica come on two feeds in any order. Until a worker is sent somewhere, the
// holder that placement prefers counts as home.
void RouterEngine::NoteSession(const Shard& shard, const BlockEvent& event, absl::Time now) {
  const SessionTable::Session* known = sessions_.Find(event.tenant, event.session_id, now);
  SessionTable::Session session = {.home = shard.serial};
  if (known != nullptr && known->home != shard.serial) {
    const Shard* home = UsableHome(known->home, now);
    bool stays = home != nullptr;
    if (stays && !known->routed) {
      const cluster::PlacementMember both[] = {{home->member.id, home->member.weight},
                                               {shard.member.id, shard.member.weight}};
      stays = cluster::PlacementOrder(event.session_id, both).front() == 0;
    }
    if (stays) session = *known;
  } else if (known != nullptr) {
    session = *known;
  }
  sessions_.Put(event.tenant, event.session_id, session, now);
}

ShardState RouterEngine::StateOf(const Shard& shard, absl::Time now) const {
  if (!detector_.IsAlive(shard.member.id, now)) return ShardState::kDead;
  if (shard.heartbeat.draining) return ShardState::kDraining;
  return shard.incoming.has_value() ? ShardState::kSyncing : ShardState::kAlive;
}

void RouterEngine::NoteState(Shard& shard, absl::Time now) {
  const ShardState state = StateOf(shard, now);
  if (state == shard.told) return;
  shard.told = state;
  epoch_ = Epoch(epoch_.value + 1);
}

void RouterEngine::Tick(absl::Time now) {
  {
    absl::MutexLock lock(&mu_);
    sessions_.Expire(now);
    for (auto& [id, shard] : shards_) {
      NoteState(shard, now);
      const bool holds = shard.complete.has_value() || shard.incoming.has_value();
      const absl::Duration silence = detector_.Silence(id, now);
      // Never heard at all: it holds nothing, and its feed may be about to speak.
      if (!holds || silence == absl::InfiniteDuration()) continue;
      if (silence > limits::kDeadShardMemory) DropContents(shard);
    }
  }
  // One pass over the index per tick at most, let go of between parts.
  for (size_t part = 0; part < limits::kRouterIndexStripes; ++part) {
    absl::MutexLock lock(&mu_);
    if (!index_.SweepSome()) return;
  }
}

}  // namespace reprise::router
