// Where each conversation lives, as far as this router has seen. Soft state: a session that is
// forgotten is placed anew.
//
// Invariants: at most `sessions_max` sessions, the least recently used is forgotten first; none
// older than `ttl`. A session takes a fixed 40 bytes or so: its name is kept as a 128-bit hash,
// since a collision costs one wrong hint.
//
// Thread safety: none; the owner serialises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

namespace reprise::router {

// One member of the cluster, never reused within a process.
using ShardSerial = StrongId<struct ShardSerialTag, uint32_t>;

struct SessionTableOptions {
  size_t sessions_max = limits::kSessionsMax;
  absl::Duration ttl = limits::kSessionTtl;
};

class SessionTable {
 public:
  struct Session {
    ShardSerial home;
    bool routed = false;  // a worker was sent there; false: only seen in events
  };

  explicit SessionTable(SessionTableOptions options = {}) : options_(options) {}

  // nullptr when it is unknown or too old. Valid until the next Put or Expire.
  const Session* Find(const Tenant& tenant, absl::string_view session_id, absl::Time now) const;
  // Also makes it the most recently used.
  void Put(const Tenant& tenant, absl::string_view session_id, Session session, absl::Time now);
  // Forgets what is too old.
  void Expire(absl::Time now);

  size_t size() const { return by_name_.size(); }

 private:
  struct Name {
    uint64_t low = 0;
    uint64_t high = 0;
    friend bool operator==(const Name&, const Name&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Name& name) {
      return H::combine(std::move(h), name.low, name.high);
    }
  };
  // A node of the list in order of use, linked by index.
  struct Node {
    Name name;
    Session session;
    absl::Time used;
    uint32_t older = kNone;
    uint32_t newer = kNone;
  };
  static constexpr uint32_t kNone = ~uint32_t{0};

  static Name NameOf(const Tenant& tenant, absl::string_view session_id);
  void Unlink(uint32_t node);
  void LinkNewest(uint32_t node);
  void ForgetOldest();

  const SessionTableOptions options_;
  absl::flat_hash_map<Name, uint32_t> by_name_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> free_;
  uint32_t oldest_ = kNone;
  uint32_t newest_ = kNone;
};

}  // namespace reprise::router
