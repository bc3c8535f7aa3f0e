// Membership from a DNS name: who is behind a headless Service of Kubernetes, so that scaling a
// StatefulSet is all that its cluster has to be told. The SRV records `_grpc._tcp.NAME` are asked
// for every `interval`. Of each record comes one member: its id is the first label of the target
// (the pod's name, which the shard is given as --id), its address the target and the port, its
// weight 1: SRV weights share out connections, and Kubernetes writes 100 / shards into all of them.
//
// A name that is not there yet has no members, as every cluster starts. Once there were some, an
// answer that does not come, says nothing, is cut off or holds anything that is no member leaves
// them as they are, and State says why. A record that is gone is a member that is gone: DNS does
// not tell a shard that was taken away from one that is being started again.
//
// One DNS message holds 64 KiB: some 800 shards whose targets have 60 characters.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct DnsMembershipOptions {
  // The Service's name, e.g. "reprise-shard": the resolver's search domains are tried, as for any
  // name (resolv.conf). With the whole domain and a dot at the end it is asked for as it is.
  std::string name;
  absl::Duration interval = limits::kMembersDnsInterval;  // between two questions
  absl::Duration timeout = limits::kMembersDnsTimeout;    // of one, its repetitions included
  // DNS servers to ask, as "ADDRESS:PORT,..." without names. Empty: those of resolv.conf, which is
  // read again for each question.
  std::string servers;
  // Told once for each way in which the name turns bad, when it is good again, and when it is not
  // there yet. Empty: nobody is told.
  std::function<void(absl::string_view)> log;
};

class DnsMembership : public Membership {
 public:
  // Does not wait for an answer. INVALID_ARGUMENT for a name that is none and for ill-formed
  // servers. REQUIRES: interval > 0, timeout > 0. Destroying it waits for no answer either.
  static absl::StatusOr<std::unique_ptr<DnsMembership>> Create(DnsMembershipOptions options);
};

}  // namespace reprise::cluster
