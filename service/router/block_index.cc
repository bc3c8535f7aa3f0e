#include "service/router/block_index.h"

#include <algorithm>
#include <limits>

#include "absl/container/inlined_vector.h"
#include "proto/types/status_macros.h"

namespace reprise::router {

StreamIndex BlockIndex::OpenStream() {
  auto free = std::find_if(streams_.begin(), streams_.end(),
                           [](const Stream& s) { return !s.open && !s.retired; });
  if (free == streams_.end() && streams_.size() >= limits::kRouterStreamsMax) {
    while (SweepSome()) {
    }
    free = std::find_if(streams_.begin(), streams_.end(),
                        [](const Stream& s) { return !s.open && !s.retired; });
    REPRISE_CHECK(free != streams_.end());
  }
  if (free == streams_.end()) free = streams_.insert(streams_.end(), Stream());
  *free = Stream{.open = true};
  return static_cast<StreamIndex>(free - streams_.begin());
}

void BlockIndex::RetireStream(StreamIndex stream) {
  REPRISE_CHECK(streams_[stream].open);
  streams_[stream].open = false;
  streams_[stream].retired = true;
  streams_[stream].stripes_swept = 0;
  ++retired_;
}

BlockIndex::SpaceUse& BlockIndex::SpaceFor(const KeySpace& space) {
  const auto [it, fresh] = spaces_.try_emplace(space);
  if (fresh) {
    do {
      ++last_space_;
    } while (last_space_ == 0 || space_names_.contains(last_space_));
    it->second.id = last_space_;
    space_names_.emplace(last_space_, space);
  }
  return it->second;
}

void BlockIndex::DropSpaceIfEmpty(absl::flat_hash_map<KeySpace, SpaceUse>::iterator space) {
  if (space->second.blocks != 0) return;
  space_names_.erase(space->second.id);
  spaces_.erase(space);
}

void BlockIndex::DropBlocks(uint32_t space, size_t blocks) {
  const auto it = spaces_.find(space_names_.at(space));
  it->second.blocks -= blocks;
  blocks_ -= blocks;
  DropSpaceIfEmpty(it);
}

void BlockIndex::Store(StreamIndex stream, const KeySpace& space, std::span<const BlockKey> keys,
                       Tier tier) {
  SpaceUse& use = SpaceFor(space);
  const Holder holder = {.stream = stream, .tier = tier};
  for (const BlockKey& key : keys) stripes_[StripeOf(key)].prefetch(IndexKey{key, use.id});
  for (const BlockKey& key : keys) {
    Stripe& stripe = stripes_[StripeOf(key)];
    const IndexKey index_key{key, use.id};
    if (blocks_ >= blocks_max_ && !stripe.contains(index_key)) {
      ++blocks_left_out_;
      continue;
    }
    const auto [it, fresh] = stripe.try_emplace(index_key, SetId{0});
    if (fresh) {
      ++use.blocks;
      ++blocks_;
    }
    if (!sets_.Contains(it->second, stream)) ++streams_[stream].blocks;
    it->second = sets_.With(it->second, holder);
  }
  if (use.blocks == 0) DropSpaceIfEmpty(spaces_.find(space));
}

void BlockIndex::Remove(StreamIndex stream, const KeySpace& space, std::span<const BlockKey> keys) {
  const auto use = spaces_.find(space);
  if (use == spaces_.end()) return;
  for (const BlockKey& key : keys) {
    stripes_[StripeOf(key)].prefetch(IndexKey{key, use->second.id});
  }
  size_t dropped = 0;
  for (const BlockKey& key : keys) {
    Stripe& stripe = stripes_[StripeOf(key)];
    const auto it = stripe.find(IndexKey{key, use->second.id});
    if (it == stripe.end() || !sets_.Contains(it->second, stream)) continue;
    --streams_[stream].blocks;
    it->second = sets_.Without(it->second, stream);
    if (it->second != 0) continue;
    stripe.erase(it);
    ++dropped;
  }
  if (dropped > 0) DropBlocks(use->second.id, dropped);
}

SetId BlockIndex::At(uint32_t space, const BlockKey& key) const {
  const Stripe& stripe = stripes_[StripeOf(key)];
  const auto it = stripe.find(IndexKey{key, space});
  return it == stripe.end() ? 0 : it->second;
}

// One question: the streams still on the way, and the runs of those that ended.
struct BlockIndex::Search {
  const BlockIndex& index;
  const uint32_t space;
  const std::span<const BlockKey> keys;
  absl::InlinedVector<StreamRun, 8> active;
  std::vector<StreamRun> done;

  SetId At(size_t i) const { return index.At(space, keys[i]); }

  void Begin(SetId set) {
    for (const Holder& holder : index.sets_.Members(set)) {
      if (!index.streams_[holder.stream].retired) {
        active.push_back({.stream = holder.stream, .tier = holder.tier});
      }
    }
  }

  // Streams of `active` that `set`, the holders of block i, lacks: their run ended at i.
  void End(SetId set, size_t i) {
    const std::span<const Holder> members = index.sets_.Members(set);
    for (size_t at = 0; at < active.size();) {
      StreamRun& run = active[at];
      const auto holder = std::find_if(members.begin(), members.end(),
                                       [&](const Holder& h) { return h.stream == run.stream; });
      if (holder != members.end()) {
        run.tier = std::max(run.tier, holder->tier);
        ++at;
        continue;
      }
      run.blocks = static_cast<uint32_t>(i);
      done.push_back(run);
      active[at] = active.back();
      active.pop_back();
    }
  }

  // Settles the runs that end in (low, high]. Blocks low and high have holders `at_low` and
  // `at_high`; what is active holds low.
  void Between(size_t low, SetId at_low, size_t high, SetId at_high) {
    if (at_low == at_high) return;
    if (high - low == 1) {
      End(at_high, high);
      return;
    }
    const size_t middle = low + (high - low) / 2;
    const SetId at_middle = At(middle);
    Between(low, at_low, middle, at_middle);
    if (!active.empty()) Between(middle, at_middle, high, at_high);
  }
};

std::vector<StreamRun> BlockIndex::Runs(const KeySpace& space,
                                        std::span<const BlockKey> keys) const {
  const auto use = spaces_.find(space);
  if (use == spaces_.end() || keys.empty()) return {};
  Search search{.index = *this, .space = use->second.id, .keys = keys};
  size_t low = 0;
  SetId at_low = search.At(0);
  search.Begin(at_low);
  size_t step = 1;
  while (!search.active.empty() && low + 1 < keys.size()) {
    const size_t high = std::min(low + step, keys.size() - 1);
    const SetId at_high = search.At(high);
    search.Between(low, at_low, high, at_high);
    low = high;
    at_low = at_high;
    step *= 2;
  }
  for (StreamRun& run : search.active) {
    run.blocks = static_cast<uint32_t>(keys.size());
    search.done.push_back(run);
  }
  return std::move(search.done);
}

SetId BlockIndex::WithoutRetired(SetId set) {
  absl::InlinedVector<StreamIndex, 4> gone;
  for (const Holder& holder : sets_.Members(set)) {
    if (streams_[holder.stream].retired) gone.push_back(holder.stream);
  }
  for (StreamIndex stream : gone) {
    --streams_[stream].blocks;
    set = sets_.Without(set, stream);
  }
  return set;
}

bool BlockIndex::SweepSome() {
  if (retired_ == 0) return false;
  Stripe& stripe = stripes_[sweep_next_];
  sweep_next_ = (sweep_next_ + 1) % stripes_.size();
  for (auto it = stripe.begin(); it != stripe.end();) {
    const auto at = it++;
    at->second = WithoutRetired(at->second);
    if (at->second != 0) continue;
    const uint32_t space = at->first.space;
    stripe.erase(at);
    DropBlocks(space, 1);
  }
  for (Stream& stream : streams_) {
    if (!stream.retired || ++stream.stripes_swept < stripes_.size()) continue;
    REPRISE_CHECK(stream.blocks == 0);
    stream.retired = false;
    --retired_;
  }
  return true;
}

}  // namespace reprise::router
