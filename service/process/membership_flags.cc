#include "service/process/membership_flags.h"

#include <utility>

#include "cluster/membership/dns_membership.h"
#include "cluster/membership/etcd/etcd_membership.h"
#include "cluster/membership/static_file_membership.h"
#include "proto/types/status_macros.h"

namespace reprise::process {

namespace {

// An unset variable of a script is no answer.
std::string NotEmpty(const std::string& text) {
  return text.empty() ? "is empty: give it a value, or leave the flag out" : "";
}

}  // namespace

void MembershipFlags::AddTo(CLI::App& app, const std::string& without) {
  CLI::Option* const file =
      app.add_option(
             "--members", file_,
             "YAML file with the cluster's shards, read again when it changes; may come later" +
                 without)
          ->check(NotEmpty);
  CLI::Option* const dns =
      app.add_option("--members-dns", dns_name_,
                     "DNS name whose SRV records (_grpc._tcp.NAME) are the cluster's shards, asked "
                     "again and again, e.g. a headless service of Kubernetes; a shard's id is the "
                     "first label of its host")
          ->check(NotEmpty)
          ->excludes(file);
  CLI::Option* const etcd =
      app.add_option("--etcd", etcd_.endpoints,
                     "etcd's HOST:PORT, or several, separated by commas: shards register "
                     "themselves there, and while it is away the last members stay")
          ->delimiter(',')
          ->check(NotEmpty)
          ->excludes(file)
          ->excludes(dns);
  app.add_option("--etcd-prefix", etcd_prefix_, "Keys of this cluster's shards")
      ->needs(etcd)
      ->capture_default_str();
  app.add_option("--etcd-ca", etcd_.ca_file,
                 "PEM file of the authorities whose certificate etcd has; without it plaintext")
      ->needs(etcd);
  app.add_option("--etcd-cert", etcd_.certificate_file,
                 "PEM file of the certificate that this process shows to etcd")
      ->needs(etcd);
  app.add_option("--etcd-key", etcd_.key_file, "PEM file of its private key")->needs(etcd);
  app.add_option("--etcd-user", etcd_.user,
                 "User of etcd's own authentication; beyond loopback it needs --etcd-ca")
      ->needs(etcd);
  app.add_option("--etcd-password-file", etcd_.password_file, "File with that user's password")
      ->needs(etcd);
}

absl::StatusOr<std::unique_ptr<cluster::Membership>> MembershipFlags::Open(
    const std::function<void(absl::string_view)>& log) const {
  std::unique_ptr<cluster::Membership> membership;
  if (!file_.empty()) {
    REPRISE_ASSIGN_OR_RETURN(membership,
                             cluster::StaticFileMembership::Create({.path = file_, .log = log}));
  } else if (!dns_name_.empty()) {
    REPRISE_ASSIGN_OR_RETURN(membership,
                             cluster::DnsMembership::Create({.name = dns_name_, .log = log}));
  } else if (!etcd_.endpoints.empty()) {
    REPRISE_ASSIGN_OR_RETURN(membership, cluster::EtcdMembership::Create(
                                             {.etcd = etcd_, .prefix = etcd_prefix_, .log = log}));
  }
  return membership;
}

}  // namespace reprise::process
