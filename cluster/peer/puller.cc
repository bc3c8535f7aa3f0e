#include "cluster/peer/puller.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cluster/peer/pull_chain.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

constexpr char kDoing[] = "pulling from";

// Another peer does not help then, and this one is not at fault.
bool NoRoomHere(const absl::Status& status) {
  return RefusalReason(status) == "NO_SPACE";
}

}  // namespace

absl::StatusOr<PulledRun> Puller::Pull(const ReplicationJob& job, const ShardId& from,
                                       absl::Time deadline) {
  ++pulls_;
  absl::StatusOr<PulledRun> run = TryAll(job, from, deadline);
  if (!run.ok()) ++failed_;
  return run;
}

absl::StatusOr<PulledRun> Puller::TryAll(const ReplicationJob& job, const ShardId& from,
                                         absl::Time deadline) {
  PulledRun run;
  REPRISE_ASSIGN_OR_RETURN(run.run_blocks, target_.Stored(job));
  if (run.run_blocks >= job.keys.size()) return run;
  REPRISE_ASSIGN_OR_RETURN(const std::vector<Member> sources,
                           Sources(job, from, run.run_blocks, deadline));
  absl::Status last;
  for (const Member& peer : sources) {
    last = PullFrom(peer, job, deadline, run);
    REPRISE_ASSIGN_OR_RETURN(run.run_blocks, target_.Stored(job));
    if (last.ok() || NoRoomHere(last)) break;
  }
  // Some of it is better than why there is not more.
  if (!last.ok() && run.pulled_blocks == 0) return last;
  return run;
}

absl::StatusOr<std::vector<Member>> Puller::Sources(const ReplicationJob& job, const ShardId& from,
                                                    uint32_t stored, absl::Time deadline) {
  if (!from.name.empty()) {
    std::optional<Member> named = peers_.Find(from);
    if (named.has_value()) return std::vector<Member>{*std::move(named)};
    return Refusal(
        absl::StatusCode::kNotFound, "PEER_UNKNOWN",
        absl::StrCat("from_shard_id = ", from.name, " is no other shard that ", peers_.self().name,
                     " knows: name a member of its cluster, or none"));
  }
  std::vector<std::pair<uint32_t, Member>> found;
  std::vector<Member> peers = peers_.InOrder(job.session_id, job.keys);
  peers.resize(std::min(peers.size(), limits::kPullPeersMax));
  for (Member& peer : peers) {
    const absl::StatusOr<uint32_t> run = AskHowMuch(peer, job, deadline);
    if (run.ok() && *run > stored) found.emplace_back(*run, std::move(peer));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<Member> sources;
  for (auto& [run, peer] : found) sources.push_back(std::move(peer));
  return sources;
}

absl::StatusOr<uint32_t> Puller::AskHowMuch(const Member& peer, const ReplicationJob& job,
                                            absl::Time deadline) {
  REPRISE_ASSIGN_OR_RETURN(const std::shared_ptr<ShardLink> link,
                           peers_.Link(peer, job.tenant, PeerUse::kRead, kDoing, deadline));
  absl::StatusOr<OpenedSpec> spec = link->OpenSpec(job.spec, deadline);
  absl::StatusOr<uint32_t> run =
      spec.ok() ? link->Lookup(spec->handle, job.keys, deadline) : spec.status();
  if (!run.ok()) peers_.CallFailed(peer, kDoing, run.status());
  return run;
}

absl::Status Puller::PullFrom(const Member& peer, const ReplicationJob& job, absl::Time deadline,
                              PulledRun& run) {
  REPRISE_ASSIGN_OR_RETURN(const std::shared_ptr<ShardLink> link,
                           peers_.Link(peer, job.tenant, PeerUse::kRead, kDoing, deadline));
  const absl::Time started = peers_.clock().Now();
  const PullOutcome outcome = PullChain(*link, target_, job, deadline);
  const PulledChain& pulled = outcome.pulled;
  if (pulled.blocks > 0) {
    peers_.NoteMoved(pulled.bytes, peers_.clock().Now() - started);
    run.pulled_blocks += pulled.blocks;
    run.from = peer.id;
    blocks_ += pulled.blocks;
    bytes_ += pulled.bytes;
  }
  if (outcome.status.ok()) {
    peers_.CallSucceeded(peer);
  } else if (!NoRoomHere(outcome.status)) {
    peers_.CallFailed(peer, kDoing, outcome.status);
  }
  return outcome.status;
}

PullerCounters Puller::counters() const {
  return {.pulls = pulls_, .pulls_failed = failed_, .blocks = blocks_, .bytes = bytes_};
}

std::vector<std::pair<std::string, uint64_t>> PullerCounters::Named() const {
  return {{"pulls_total", pulls},
          {"pulls_failed_total", pulls_failed},
          {"pulled_blocks_total", blocks},
          {"pulled_bytes_total", bytes}};
}

}  // namespace reprise::cluster
