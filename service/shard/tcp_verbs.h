// The verbs that callers ask on the tcp port: the same handlers that gRPC's calls go to, with the
// same admission.
//
// Invariants: an attachment speaks for whoever opened it; a call is told of as gRPC's are, under
// its RPC's name. Thread safety: Answer may be called from any thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/lanes/tcp/verb_host.h"
#include "proto/wire/call_times.h"
#include "service/shard/handlers/acquire_handler.h"
#include "service/shard/handlers/commit_handler.h"
#include "service/shard/handlers/lookup_handler.h"
#include "service/shard/handlers/release_handler.h"
#include "service/shard/handlers/reserve_handler.h"
#include "service/shard/handlers/shard_core.h"

namespace reprise::shard {

class TcpVerbs final : public lanes::VerbHost {
 public:
  // `told` may be empty. REQUIRES: `core` outlives this.
  TcpVerbs(ShardCore& core, wire::CallEnded told);

  absl::StatusOr<std::string> Answer(AttachmentId attachment, lanes::tcp::Verb verb,
                                     absl::string_view request) override;

 private:
  template <typename Request, typename Response, typename Handler>
  absl::StatusOr<std::string> Run(WorkKind kind, Handler& handler, absl::string_view method,
                                  AttachmentId attachment, absl::string_view request);

  ShardCore& core_;
  const wire::CallEnded told_;
  LookupHandler lookup_;
  AcquireHandler acquire_;
  ReleaseHandler release_;
  ReserveHandler reserve_;
  CommitHandler commit_;
};

}  // namespace reprise::shard
