// One shard's entry among the members in etcd, kept alive from the moment this is made until it
// leaves or goes.
//
// Invariants: an entry that another process has at another address, and keeps alive, is not
// touched: of two shards with one id the first stays, and the second says so and waits. An entry
// that is lost, because etcd was away or somebody deleted it, is written again.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/etcd/etcd_client.h"
#include "cluster/membership/membership.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct EtcdRegistrationOptions {
  Member self;
  std::string prefix;
  absl::Duration ttl = limits::kRegistrationTtl;
  std::function<void(absl::string_view)> log;  // empty: nobody is told
};

class EtcdRegistration {
 public:
  struct State {
    std::string trouble;  // a sentence: why the entry is not there, or may soon end; empty: it is
    absl::Time troubled_since = absl::InfiniteFuture();
  };

  EtcdRegistration(EtcdRegistrationOptions options, std::unique_ptr<EtcdClient> client);
  // Without a good-bye: the entry ends with its lease.
  ~EtcdRegistration();
  EtcdRegistration(const EtcdRegistration&) = delete;
  EtcdRegistration& operator=(const EtcdRegistration&) = delete;

  // Says good-bye, so that others take this shard for gone and not for lost. Returns within
  // `timeout`, and kEtcdGoodByeTimeout, whatever etcd does; nothing is kept alive any more.
  void Leave(absl::Duration timeout = limits::kEtcdGoodByeTimeout);

  State state() const;

 private:
  void Run();
  // One round: the entry is there, as it should be, and has `ttl` left.
  absl::Status Keep();
  absl::Status Write(bool leaving);
  void Note(const absl::Status& status);
  bool WaitToEnd(absl::Duration timeout);

  const EtcdRegistrationOptions options_;
  const std::string key_;
  const std::unique_ptr<EtcdClient> client_;
  EtcdLease lease_ = EtcdLease::kNone;  // the thread's alone

  mutable absl::Mutex mu_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool leaving_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool registered_ ABSL_GUARDED_BY(mu_) = false;
  State state_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace reprise::cluster
