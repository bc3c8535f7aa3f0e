#include "service/shard/handlers/drain_handler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "service/shard/shard_peers.h"

namespace reprise::shard {

absl::Status DrainHandler::Handle(const v1::DrainRequest& request, v1::DrainResponse& response) {
  if (core_.peers == nullptr) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "NO_MEMBERS",
                   absl::StrCat("shard ", core_.id.name,
                                " knows no other shards to hand its blocks to: start it with "
                                "--members, or stop it"));
  }
  cluster::Drain& drain = core_.peers->drain();
  if (!drain.progress().begun || request.again()) {
    const absl::Duration time = request.deadline_ms() == 0
                                    ? limits::kDrainDeadline
                                    : absl::Milliseconds(request.deadline_ms());
    if (core_.start_draining) core_.start_draining();
    drain.Start(absl::Now() + std::min(time, limits::kDrainDeadlineMax));
  }
  const cluster::DrainProgress progress = drain.progress();
  response.set_done(progress.done);
  response.set_chains(progress.chains);
  response.set_chains_safe(progress.chains_safe);
  response.set_blocks_copied(progress.blocks_copied);
  response.set_bytes_copied(progress.bytes_copied);
  response.set_shard_id(core_.id.name);
  return absl::OkStatus();
}

}  // namespace reprise::shard
