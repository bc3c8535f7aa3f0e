// Who is attached, and what its spec handles mean. Apart from the engine's lock, so that Lookup
// needs none.
//
// Thread safety: all methods may be called from any thread. Locks nothing else while it holds its
// own lock.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::shard {

// NOT_FOUND, reason ATTACHMENT_UNKNOWN.
absl::Status UnknownAttachment(AttachmentId id);

class AttachmentTable {
 public:
  struct Entry {
    Tenant tenant;
    std::string client_name;
    absl::Time last_seen;
  };

  // A new attachment under an id that cannot be guessed. RESOURCE_EXHAUSTED beyond kAttachmentsMax.
  absl::StatusOr<AttachmentId> Add(Entry entry);
  // What its handles stood for; empty when it is unknown.
  std::vector<KeySpaceId> Remove(AttachmentId id);

  absl::StatusOr<Entry> Get(AttachmentId id) const;
  // NOT_FOUND when the attachment is unknown.
  absl::Status Seen(AttachmentId id, absl::Time now);
  // InfinitePast when it is unknown.
  absl::Time last_seen(AttachmentId id) const;
  std::vector<AttachmentId> SilentSince(absl::Time since) const;

  struct Handle {
    SpecHandle handle;
    bool is_new = false;
  };
  // The handle of a key space, made when it has none. RESOURCE_EXHAUSTED beyond
  // kSpecsPerAttachmentMax.
  absl::StatusOr<Handle> Open(AttachmentId id, KeySpaceId space);
  // NOT_FOUND (reason ATTACHMENT_UNKNOWN or SPEC_UNKNOWN).
  absl::StatusOr<KeySpaceId> Resolve(AttachmentId id, SpecHandle handle) const;

  size_t size() const;
  std::vector<AttachmentId> Ids() const;

 private:
  struct Attachment {
    Entry entry;
    std::vector<KeySpaceId> spaces;  // handle h stands for spaces[h - 1]
  };

  mutable absl::Mutex mu_;
  absl::flat_hash_map<AttachmentId, Attachment> attachments_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::shard
