// Looks at a cluster again and again: the router, then all shards at once, on connections that are
// kept between looks.
//
// Invariants: a look ends within the patience that it was given for the routers and as much for the
// shards, whoever does not answer.
//
// Thread safety: one thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "client/cli/top/view.h"
#include "proto/wire/credentials.h"
#include "reprise/v1/router.grpc.pb.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::cli {

class TopSampler {
 public:
  // INVALID_ARGUMENT as CheckWhere, or naming what is wrong with a certificate file.
  static absl::StatusOr<TopSampler> Create(const Where& where);

  // Of a router that answered before and does not now, what it said then, with the reason. The
  // status of the last router tried when none ever answered; CANCELLED once `stop`, which is asked
  // every now and then, says so.
  absl::StatusOr<TopSample> Look(absl::Duration patience, const std::function<bool()>& stop);

 private:
  template <typename Service>
  using Stubs = std::map<std::string, std::unique_ptr<typename Service::Stub>>;  // by address

  TopSampler(const Where& where, std::shared_ptr<const wire::Credentials> credentials)
      : where_(where), credentials_(std::move(credentials)) {}

  absl::Status LookAtRouter(absl::Duration patience, const std::function<bool()>& stop);
  std::vector<TopShard> ShardsToAsk() const;
  void LookAtShards(absl::Duration patience, const std::function<bool()>& stop,
                    std::vector<TopShard>& shards);

  const Where where_;
  const std::shared_ptr<const wire::Credentials> credentials_;
  Stubs<v1::RouterService> routers_;
  Stubs<v1::ShardService> shards_;
  TopSample last_;                          // of the router; its shards are not filled in
  std::map<std::string, std::string> ids_;  // of named shards that answered once, by address
};

}  // namespace reprise::cli
