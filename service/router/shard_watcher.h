// Follows one shard's feed and tells the engine, for as long as the shard is a member: connects,
// reads, begins anew with a back-off after a gap, a broken connection or a silence.
//
// Invariants: one feed at a time; when the destructor returns, nothing of this runs any more.
//
// Thread safety: Tick and the destructor from one thread at a time; gRPC's threads call the rest.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "proto/types/clock.h"
#include "proto/wire/credentials.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "service/router/router_engine.h"

namespace reprise::router {

struct ShardWatcherOptions {
  std::shared_ptr<const wire::Credentials> credentials;  // nullptr: plaintext
  std::function<void(absl::string_view)> log;            // empty: nobody is told
};

class ShardWatcher {
 public:
  // REQUIRES: engine and clock outlive this.
  ShardWatcher(RouterEngine& engine, const Clock& clock, cluster::Member member,
               ShardWatcherOptions options);
  ~ShardWatcher();
  ShardWatcher(const ShardWatcher&) = delete;
  ShardWatcher& operator=(const ShardWatcher&) = delete;

  // Begins a feed when there is none and its time has come; breaks off one that is silent.
  // Called every kRouterTickInterval.
  void Tick();
  const cluster::Member& member() const { return member_; }

 private:
  class Feed;
  // What a feed says when gRPC is done with it.
  void Ended(const grpc::Status& status, bool heard);

  RouterEngine& engine_;
  const Clock& clock_;
  const cluster::Member member_;
  const ShardWatcherOptions options_;
  const std::unique_ptr<v1::ShardService::Stub> stub_;

  absl::Mutex mu_;
  std::unique_ptr<Feed> feed_ ABSL_GUARDED_BY(mu_);  // set until Ended
  absl::Time next_attempt_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Duration retry_ ABSL_GUARDED_BY(mu_);
  bool complained_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace reprise::router
