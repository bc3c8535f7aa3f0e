// `reprise drain SHARD`: a shard hands its blocks to the others and takes no more, before it is
// stopped.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "nlohmann/json.hpp"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "reprise/v1/admin.pb.h"

namespace reprise::cli {
namespace {

constexpr absl::Duration kAskAgain = absl::Milliseconds(200);

struct DrainOptions {
  Common common;
  Where where;
  std::string shard;
  double deadline_s = absl::ToDoubleSeconds(limits::kDrainDeadline);
};

// By its id, as the router or the shards themselves say, or by its address.
absl::StatusOr<Server> Find(const DrainOptions& options) {
  REPRISE_ASSIGN_OR_RETURN(const ClusterReport report, DescribeCluster(options.where));
  std::string known;
  for (const ShardReport& shard : report.shards) {
    if (shard.shard_id == options.shard || shard.address == options.shard) {
      return Server{shard.address, report.credentials};
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", shard.shard_id);
  }
  return Refusal(absl::StatusCode::kNotFound, "SHARD_UNKNOWN",
                 absl::StrCat("there is no shard ", options.shard, " among ",
                              known.empty() ? "none" : known, ": name one of them"));
}

// Asks until it is done. The shard goes on when this is interrupted.
absl::StatusOr<v1::DrainResponse> AwaitDrained(const DrainOptions& options, const Server& shard) {
  Progress progress(absl::StrCat("draining ", options.shard));
  v1::DrainRequest request;
  request.set_deadline_ms(static_cast<uint32_t>(options.deadline_s * 1000));
  request.set_again(true);
  while (true) {
    REPRISE_ASSIGN_OR_RETURN(
        const v1::DrainResponse response,
        DrainShard(shard, request, absl::Now() + absl::Seconds(options.where.timeout_s)));
    if (response.done()) return response;
    progress.Tick(absl::StrCat(response.chains_safe(), " of ", response.chains(), " chains, ",
                               HumanBytes(response.bytes_copied())));
    request.set_again(false);
    absl::SleepFor(kAskAgain);
  }
}

ExitCode Drain(const DrainOptions& options) {
  const absl::StatusOr<Server> shard = Find(options);
  if (!shard.ok()) return Complain(shard.status());
  const absl::StatusOr<v1::DrainResponse> drained = AwaitDrained(options, *shard);
  if (!drained.ok()) return Complain(drained.status());
  const uint64_t left = drained->chains() - std::min(drained->chains(), drained->chains_safe());
  if (options.common.json()) {
    PrintJson({{"shard", drained->shard_id()},
               {"address", shard->address},
               {"chains", drained->chains()},
               {"chains_safe", drained->chains_safe()},
               {"blocks_copied", drained->blocks_copied()},
               {"bytes_copied", drained->bytes_copied()}});
  } else {
    std::printf("%s is drained: %llu of %llu chains are on other shards, %s copied\n",
                drained->shard_id().c_str(),
                static_cast<unsigned long long>(drained->chains_safe()),
                static_cast<unsigned long long>(drained->chains()),
                HumanBytes(drained->bytes_copied()).c_str());
  }
  if (left == 0) return ExitCode::kOk;
  std::fprintf(
      stderr,
      "reprise: %llu chains are on this shard alone and go with it: the others have no room for "
      "them, do not answer, or there was no more time. Ask again, or give them memory.\n",
      static_cast<unsigned long long>(left));
  return ExitCode::kFailed;
}

}  // namespace

Registered AddDrain(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "drain", "a shard takes no more writes and hands its blocks to the others; then stop it");
  auto options = std::make_shared<DrainOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option("id", options->shard, "the shard: its id or its address")->required();
  command
      ->add_option("--deadline", options->deadline_s,
                   "seconds, then what is not handed over by then stays")
      ->check(CLI::Range(0.001, absl::ToDoubleSeconds(limits::kDrainDeadlineMax)))
      ->capture_default_str();
  return {command, [options] { return Drain(*options); }};
}

}  // namespace reprise::cli
