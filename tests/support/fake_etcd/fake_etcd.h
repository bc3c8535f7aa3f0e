// As much of etcd as the cluster's membership speaks to, in this process, over real gRPC: keys with
// revisions, transactions of one comparison, watches with history, leases that end, users. It can
// be told to misbehave as the real one does on a bad day.
//
// tests/unit/cluster/membership/etcd runs the same claims against a real etcd where there is one.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"

namespace reprise::testing {

class FakeEtcd {
 public:
  FakeEtcd();
  ~FakeEtcd();

  const std::string& address() const;  // host:port, the same after a restart

  void Put(const std::string& key, const std::string& value);
  void Delete(const std::string& key);
  std::string Value(const std::string& key) const;  // "": it does not exist
  size_t keys() const;
  int watches() const;        // open now
  int watches_begun() const;  // so far

  // Calls are taken and not answered, until Resume.
  void Pause();
  void Resume();
  // Watches are created, with the revision of the moment, and told of no change until told again.
  void HoldChanges(bool hold);
  // The server goes, with its connections; data stays.
  void Stop();
  void Start();
  // Ends every lease now, and with it its keys.
  void EndLeases();
  // Forgets history up to now: a watch from an earlier revision is refused.
  void Compact();
  // Ends all watches, as a member that lost its leader does, and refuses calls, until told again.
  void SetLeader(bool present);
  // From now on calls need a token; tokens given so far are void.
  void RequireUser(const std::string& name, const std::string& password);
  void VoidTokens();

 private:
  class Store;
  class Services;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Services> services_;
  std::string address_;
};

}  // namespace reprise::testing
