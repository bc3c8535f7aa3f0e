// Membership from etcd: shards register themselves there, under leases that they keep alive, and
// everybody watches. Nobody edits a list when a shard is added or taken away.
//
// etcd is needed for change alone: while it is away, or says that it has no leader, the last good
// members stay, however long, and State says why. A registration that ends without a good-bye keeps
// its shard a member for kVanishedMemberKept (member_table.h says why).
//
// Thread safety: as Membership.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/membership/etcd/etcd_client.h"
#include "cluster/membership/membership.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

struct EtcdMembershipOptions {
  EtcdOptions etcd;
  std::string prefix = "/reprise/members/";  // of the cluster's keys, which end with the shard's id
  absl::Duration registration_ttl = limits::kRegistrationTtl;
  absl::Duration vanished_kept = limits::kVanishedMemberKept;
  absl::Duration watch_age = limits::kEtcdWatchAge;
  // As MembershipBoard's.
  std::function<void(absl::string_view)> log;
  // How etcd is reached; one client watches, another one registers.
  std::function<absl::StatusOr<std::unique_ptr<EtcdClient>>(EtcdOptions)> dial = EtcdClient::Create;
};

class EtcdMembership : public Membership {
 public:
  // As EtcdClient::Create, and INVALID_ARGUMENT for a prefix that is empty or does not end in '/'.
  // etcd may come later.
  static absl::StatusOr<std::unique_ptr<EtcdMembership>> Create(EtcdMembershipOptions options);
};

}  // namespace reprise::cluster
