#include "service/router/session_table.h"

#include <xxhash.h>

namespace reprise::router {

SessionTable::Name SessionTable::NameOf(const Tenant& tenant, absl::string_view session_id) {
  // The tenant's hash seeds the session's, so that the two texts cannot run into each other.
  const uint64_t seed = XXH3_64bits(tenant.name.data(), tenant.name.size());
  const XXH128_hash_t hash = XXH3_128bits_withSeed(session_id.data(), session_id.size(), seed);
  return {hash.low64, hash.high64};
}

const SessionTable::Session* SessionTable::Find(const Tenant& tenant, absl::string_view session_id,
                                                absl::Time now) const {
  const auto it = by_name_.find(NameOf(tenant, session_id));
  if (it == by_name_.end()) return nullptr;
  const Node& node = nodes_[it->second];
  return now - node.used > options_.ttl ? nullptr : &node.session;
}

void SessionTable::Put(const Tenant& tenant, absl::string_view session_id, Session session,
                       absl::Time now) {
  const Name name = NameOf(tenant, session_id);
  const auto [it, fresh] = by_name_.try_emplace(name, kNone);
  if (fresh) {
    if (free_.empty()) {
      it->second = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
    } else {
      it->second = free_.back();
      free_.pop_back();
    }
  } else {
    Unlink(it->second);
  }
  Node& node = nodes_[it->second];
  node.name = name;
  node.session = session;
  node.used = now;
  LinkNewest(it->second);
  if (by_name_.size() > options_.sessions_max) ForgetOldest();
}

void SessionTable::Expire(absl::Time now) {
  while (oldest_ != kNone && now - nodes_[oldest_].used > options_.ttl) ForgetOldest();
}

void SessionTable::ForgetOldest() {
  const uint32_t node = oldest_;
  Unlink(node);
  by_name_.erase(nodes_[node].name);
  free_.push_back(node);
}

void SessionTable::Unlink(uint32_t node) {
  const Node& it = nodes_[node];
  (it.older == kNone ? oldest_ : nodes_[it.older].newer) = it.newer;
  (it.newer == kNone ? newest_ : nodes_[it.newer].older) = it.older;
}

void SessionTable::LinkNewest(uint32_t node) {
  Node& it = nodes_[node];
  it.older = newest_;
  it.newer = kNone;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = node;
  newest_ = node;
}

}  // namespace reprise::router
