// The attach streams that are open: who owns which attachment, and how to tell all of them
// something.
//
// Invariants: an attachment is known here from the engine's Attach to its Detach.
//
// Thread safety: all methods may be called from any thread. Calls the streams while it holds its
// lock; a stream takes its own lock after this one, never before.
#pragma once

#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/types/ids.h"

namespace reprise::shard {

// One attach stream as the registry sees it.
class AttachedStream {
 public:
  virtual ~AttachedStream() = default;
  // Tells the client that the shard is about to stop: a notice that is owed until it is written.
  virtual void Drain() = 0;
  // Ends the stream if the client has been silent since `silent_since`.
  virtual void EndIfSilent(absl::Time silent_since) = 0;
  virtual void End(const absl::Status& why) = 0;
  // Ends the stream because the shard stops: OK for a client that has been told before, so that it
  // reads the notice to its end; `why` for the others.
  virtual void EndStopping(const absl::Status& why) = 0;
};

// Who opened an attachment, and whose blocks it is about: another tenant's when the caller is one
// of the cluster's own shards.
struct AttachmentOwner {
  Tenant caller;
  Tenant tenant;
};

class Attachments {
 public:
  // Not OK: the shard's streams have ended, and this one is to end with that.
  absl::Status AddStream(AttachedStream* stream);
  void RemoveStream(AttachedStream* stream);

  void Own(AttachmentId id, AttachmentOwner owner);
  void Disown(AttachmentId id);
  // NOT_FOUND (ATTACHMENT_UNKNOWN) unless `id` is attached and `caller`'s: another one's attachment
  // looks exactly like none.
  absl::Status Check(AttachmentId id, const Tenant& caller) const;
  // Whose blocks it is about. As Check.
  absl::StatusOr<Tenant> TenantOf(AttachmentId id, const Tenant& caller) const;
  // Who opened it, for a transport that knows by itself whose it is. As Check.
  absl::StatusOr<Tenant> CallerOf(AttachmentId id) const;

  void ForEach(absl::FunctionRef<void(AttachedStream&)> visit);
  // EndStopping of every stream, those that are not there yet included.
  void EndAll(const absl::Status& why);

  // A stream owes its client a notice until it has been written or the stream is over.
  void OweNotice();
  void PayNotice();
  // False when a notice is still owed at `deadline`.
  bool AwaitNotices(absl::Time deadline);

 private:
  mutable absl::Mutex mu_;
  absl::flat_hash_set<AttachedStream*> streams_ ABSL_GUARDED_BY(mu_);
  absl::Status ended_ ABSL_GUARDED_BY(mu_);  // not OK: all have
  mutable absl::Mutex owners_mu_;
  absl::flat_hash_map<AttachmentId, AttachmentOwner> owners_ ABSL_GUARDED_BY(owners_mu_);
  absl::Mutex notices_mu_;  // taken after a stream's lock
  size_t notices_owed_ ABSL_GUARDED_BY(notices_mu_) = 0;
};

}  // namespace reprise::shard
