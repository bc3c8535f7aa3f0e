#include "client/cpp/client_core.h"

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {

ClientCore::ClientCore(ClientOptions client_options, ClientSeams seams)
    : options(std::move(client_options)),
      staging(options.threads),
      device_workspaces(options.threads),
      queries(std::move(seams.queries)),
      shards({.client_name = options.name,
              .lanes = options.lanes,
              .connect = std::move(seams.connect),
              .clock = seams.clock}),
      executor(options.threads, limits::kClientQueueJobsMax),
      routes({.router = std::move(seams.router), .shards = options.shards, .clock = seams.clock},
             shards, executor),
      prefetched(seams.clock) {}

absl::StatusOr<OpenShard> OpenAt(ClientCore& core, const std::string& address,
                                 const CacheSpec& spec, absl::Time deadline) {
  constexpr int kTries = 2;
  for (int tries_left = kTries;; --tries_left) {
    OpenShard shard{.address = address, .link = nullptr, .spec = {}};
    REPRISE_ASSIGN_OR_RETURN(shard.link, core.shards.Get(address, deadline));
    const absl::Time started = absl::Now();
    absl::StatusOr<cluster::OpenedSpec> opened = shard.link->OpenSpec(spec, deadline);
    if (opened.ok()) {  // perhaps from the link's memory: says nothing about the shard
      shard.spec = *opened;
      return shard;
    }
    ReportCall(core, shard, opened.status(), started, deadline);
    if (tries_left == 1 || !LinkBroke(shard, opened.status())) return opened.status();
  }
}

RouteCall RouteCallOf(const ClientCore& core, const ClientSpec& spec, const std::string& session,
                      std::span<const BlockKey> keys) {
  return {.session = session,
          .fingerprint = spec.fingerprint,
          .keys = keys,
          .compute_block = core.prefill.PerToken(spec.fingerprint) * spec.spec.block_tokens,
          .block_bytes = spec.stored.block_bytes};
}

void ReportCall(ClientCore& core, const OpenShard& shard, const absl::Status& status,
                absl::Time started, absl::Time deadline) {
  core.shards.Report(shard.address, shard.link, status, deadline - started);
}

bool LinkBroke(const OpenShard& shard, const absl::Status& status) {
  return !status.ok() && (!shard.link->alive() || RefusalReason(status) == "ATTACHMENT_UNKNOWN");
}

Run::Releaser MakeReleaser(const CorePtr& core) {
  return [weak = std::weak_ptr<ClientCore>(core)](std::vector<Segment> segments) {
    const CorePtr alive = weak.lock();
    if (alive == nullptr) return;  // the links are gone, and the leases with them
    auto leases = std::make_shared<std::vector<Segment>>(std::move(segments));
    // When the queue is full the leases end by themselves, a little later.
    (void)alive->executor.Submit(
        {.deadline = absl::Now() + limits::kLeaseTtl,
         .run =
             [leases] {
               for (const Segment& segment : *leases) {
                 if (!segment.lease || !segment.link->alive()) continue;
                 (void)segment.link->Release(segment.lease, absl::Now() + limits::kReleaseDeadline);
               }
             },
         .drop = [](const absl::Status&) {}});
  };
}

}  // namespace reprise::client
