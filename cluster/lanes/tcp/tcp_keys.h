// The attachments that may use the shard's tcp lane, and where connections are encrypted, the key
// of each: made here, told to its owner within Attach, which is encrypted and knows who asks, and
// never sent on the connection itself.
//
// Invariants: a key is random, is one attachment's, and is good for nothing once that is over.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/ids.h"
#include "proto/types/limits.h"

namespace reprise::lanes {

using TcpKey = std::array<uint8_t, limits::kTcpKeyBytes>;

// What a caller calls its key on the connection, in plaintext: a digest, which tells nothing of it.
using TcpKeyName = std::array<uint8_t, 16>;
TcpKeyName NameOf(const TcpKey& key);

class TcpKeys {
 public:
  explicit TcpKeys(bool encrypted) : encrypted_(encrypted) {}

  bool encrypted() const { return encrypted_; }

  // The attachment may connect from now on; nullopt: in plaintext. UNAVAILABLE when there are no
  // random bytes.
  absl::StatusOr<std::optional<TcpKey>> Add(AttachmentId attachment);
  void Remove(AttachmentId attachment);

  bool Knows(AttachmentId attachment) const;

  struct Named {
    AttachmentId attachment;
    TcpKey key;
  };
  std::optional<Named> Find(std::span<const uint8_t> name) const;

 private:
  const bool encrypted_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<AttachmentId, TcpKeyName> names_ ABSL_GUARDED_BY(mu_);  // zeros: plaintext
  absl::flat_hash_map<TcpKeyName, Named> keys_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes
