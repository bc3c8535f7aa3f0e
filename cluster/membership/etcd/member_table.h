// What registrations say of who is a member, as a pure table: entries and their ends go in, members
// come out.
//
// A registration that ends without a good-bye is a shard that died, or one that lives and was cut
// off from etcd. The first one nobody reaches, whatever is said of it, and the second one's blocks
// are as good as ever: so it stays a member for a while. Who says good-bye leaves at once.
//
// Invariants: at most kShardsMax members; a record that is broken changes nothing but Trouble.
//
// Thread safety: none; the owner serialises.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/membership/etcd/etcd_client.h"
#include "cluster/membership/membership.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

class MemberTable {
 public:
  // Entries have keys `prefix` + id.
  explicit MemberTable(std::string prefix, absl::Duration kept = limits::kVanishedMemberKept)
      : prefix_(std::move(prefix)), kept_(kept) {}

  // All that is registered now.
  void Replace(std::span<const EtcdEntry> entries, absl::Time now);
  void Apply(const EtcdChange& change, absl::Time now);
  // Whoever vanished longer than `kept` ago is no member any more.
  void Forget(absl::Time now);

  std::vector<Member> Members() const;
  // A sentence on the records that are not used; empty: all are.
  std::string Trouble() const;

 private:
  struct Known {
    Member member;
    absl::Time vanished = absl::InfiniteFuture();
  };
  // The id in `key`; empty: it is not below the prefix.
  absl::string_view IdOf(absl::string_view key) const;
  void Put(const EtcdEntry& entry, absl::Time now);
  void Vanish(absl::string_view id, absl::Time now);

  const std::string prefix_;
  const absl::Duration kept_;
  std::map<std::string, Known, std::less<>> known_;
  std::map<std::string, std::string, std::less<>> broken_;  // id: why
};

}  // namespace reprise::cluster
