#include "cluster/placement/placement.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

// The finaliser of splitmix64: the two hashes are combined by xor, this spreads the result again.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

struct Scored {
  double score;
  uint64_t hash;
  uint32_t index;
};

// Weight over an exponential variate: the largest of these is member i with probability weight_i /
// sum.
Scored Score(uint64_t key_hash, const PlacementMember& member, uint32_t index) {
  REPRISE_CHECK(member.weight > 0 && std::isfinite(member.weight));
  constexpr uint64_t kMemberSeed = 0x5245505249534531ULL;
  const uint64_t member_hash =
      XXH3_64bits_withSeed(member.id.name.data(), member.id.name.size(), kMemberSeed);
  const uint64_t hash = Mix(key_hash ^ member_hash);
  const double uniform = (static_cast<double>(hash >> 11) + 0.5) * 0x1.0p-53;
  return {member.weight / -std::log(uniform), hash, index};
}

}  // namespace

std::string PlacementKey(absl::string_view session_id, std::span<const BlockKey> keys) {
  if (!session_id.empty()) return std::string(session_id);
  return keys.empty() ? std::string() : ToHex(keys.front());
}

std::vector<uint32_t> PlacementOrder(absl::string_view key,
                                     std::span<const PlacementMember> members) {
  const uint64_t key_hash = XXH3_64bits(key.data(), key.size());
  std::vector<Scored> scored;
  scored.reserve(members.size());
  for (uint32_t i = 0; i < members.size(); ++i) {
    scored.push_back(Score(key_hash, members[i], i));
  }
  std::sort(scored.begin(), scored.end(), [&](const Scored& a, const Scored& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.hash != b.hash) return a.hash > b.hash;
    return members[a.index].id < members[b.index].id;
  });
  std::vector<uint32_t> order;
  order.reserve(scored.size());
  for (const Scored& s : scored) order.push_back(s.index);
  return order;
}

std::vector<ShardId> PlacementOrder(absl::string_view key, std::span<const ShardId> ids) {
  std::vector<PlacementMember> members;
  members.reserve(ids.size());
  for (const ShardId& id : ids) members.push_back({.id = id});
  std::vector<ShardId> order;
  order.reserve(ids.size());
  for (uint32_t index : PlacementOrder(key, members)) order.push_back(ids[index]);
  return order;
}

}  // namespace reprise::cluster
