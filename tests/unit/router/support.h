// Keys and chains for the router's tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/membership/membership.h"
#include "proto/types/block_event.h"
#include "proto/types/block_key.h"

namespace reprise::router {

// A key that is different for each (chain, position).
inline BlockKey KeyOf(uint64_t chain, uint64_t position) {
  BlockKey key;
  uint64_t words[4] = {chain, position, chain * 0x9e3779b97f4a7c15ULL,
                       position * 0xbf58476d1ce4e5b9ULL};
  words[3] ^= words[2] >> 7;
  std::memcpy(key.bytes.data(), words, sizeof(words));
  return key;
}

inline std::vector<BlockKey> Chain(uint64_t chain, size_t blocks) {
  std::vector<BlockKey> keys;
  for (size_t i = 0; i < blocks; ++i) keys.push_back(KeyOf(chain, i));
  return keys;
}

inline Fingerprint FingerprintNamed(uint8_t name) {
  Fingerprint fingerprint;
  fingerprint.bytes.fill(name);
  return fingerprint;
}

inline std::vector<cluster::Member> MembersNumbered(int count) {
  std::vector<cluster::Member> members;
  for (int i = 0; i < count; ++i) {
    members.push_back({.id = {absl::StrCat("shard-", i)}, .address = absl::StrCat("h:", 7000 + i)});
  }
  return members;
}

inline BlockEvent Stored(std::vector<BlockKey> keys, const std::string& session = "") {
  return {.kind = BlockEvent::Kind::kStored,
          .tenant = {"default"},
          .fingerprint = FingerprintNamed(1),
          .keys = std::move(keys),
          .session_id = session,
          .tier = Tier::kDram};
}

inline BlockEvent Removed(std::vector<BlockKey> keys) {
  BlockEvent event = Stored(std::move(keys));
  event.kind = BlockEvent::Kind::kRemoved;
  return event;
}

inline BlockEvent SnapshotEnd() {
  return {.kind = BlockEvent::Kind::kSnapshotEnd};
}

}  // namespace reprise::router
