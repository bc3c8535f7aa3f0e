// The few calls of etcd that membership needs, to whichever endpoint answers.
//
// Invariants: a try at an endpoint ends within kEtcdCallTimeout, and a call but Watch tries each
// once, or twice where a token has ended; a call asks an endpoint that sees a leader, so that a
// cut-off one says so instead of an old truth.
//
// Thread safety: calls from one thread at a time; Cancel from any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // host:port each
  // PEM files, read again while they change. The authorities alone: etcd shows a certificate and
  // this process does not. None: plaintext.
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;
  // With etcd's own authentication. The file is read whenever a token is needed.
  std::string user;
  std::string password_file;
  absl::Duration call_timeout = limits::kEtcdCallTimeout;

  // "etcd at A, B"
  std::string Name() const;
};

enum class EtcdLease : int64_t { kNone = 0 };

struct EtcdEntry {
  std::string key;
  std::string value;
  int64_t mod_revision = 0;            // of the store when this was written
  EtcdLease lease = EtcdLease::kNone;  // with which it ends
};

struct EtcdListing {
  std::vector<EtcdEntry> entries;
  int64_t revision = 0;  // of the store that was read
};

struct EtcdChange {
  EtcdEntry entry;       // of what went: its key alone
  bool deleted = false;  // by somebody, or because its lease ended
};

class EtcdClient {
 public:
  // INVALID_ARGUMENT naming an endpoint that is no host:port, half a pair of files, a file that
  // cannot be read, or a user without a password file. Waits for nobody.
  static absl::StatusOr<std::unique_ptr<EtcdClient>> Create(EtcdOptions options);
  virtual ~EtcdClient() = default;

  // Every call: UNAVAILABLE when no endpoint answered, CANCELLED after Cancel, else what etcd says.
  virtual absl::StatusOr<EtcdListing> List(absl::string_view prefix) = 0;
  virtual absl::StatusOr<std::optional<EtcdEntry>> Get(absl::string_view key) = 0;
  virtual absl::StatusOr<EtcdLease> Grant(absl::Duration ttl) = 0;
  // NOT_FOUND when there is no such lease any more.
  virtual absl::Status KeepAlive(EtcdLease lease) = 0;
  // Writes `entry`, if it was last changed at `entry.mod_revision` (0: if it does not exist yet);
  // false: it was not.
  virtual absl::StatusOr<bool> Put(const EtcdEntry& entry) = 0;

  // Changes below `prefix` from `first_revision` on, as they come, each batch with the revision of
  // the store; OK after `age`. UNAVAILABLE also when etcd no longer knows what happened since then.
  using OnChanges = std::function<void(std::span<const EtcdChange> changes, int64_t revision)>;
  virtual absl::Status Watch(absl::string_view prefix, int64_t first_revision, absl::Duration age,
                             const OnChanges& on_changes) = 0;

  // Ends the call that is under way, and every later one at once.
  virtual void Cancel() = 0;
};

}  // namespace reprise::cluster
