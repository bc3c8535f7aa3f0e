// The flags of both servers that say where the cluster's members are found: in a file, behind a DNS
// name, or in etcd.
//
// Thread safety: for main alone.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/membership/etcd/etcd_client.h"
#include "cluster/membership/membership.h"

namespace reprise::process {

class MembershipFlags {
 public:
  // `without` ends the help of the first flag: what happens when none is given.
  void AddTo(CLI::App& app, const std::string& without);

  // nullptr when no flag was given. INVALID_ARGUMENT naming the flag or the file that is wrong.
  absl::StatusOr<std::unique_ptr<cluster::Membership>> Open(
      const std::function<void(absl::string_view)>& log) const;

  // Members register themselves there: a shard has to say where it is reached.
  bool registers() const { return !etcd_.endpoints.empty(); }

 private:
  std::string file_;
  std::string dns_name_;
  cluster::EtcdOptions etcd_;
  std::string etcd_prefix_ = "/reprise/members/";
};

}  // namespace reprise::process
