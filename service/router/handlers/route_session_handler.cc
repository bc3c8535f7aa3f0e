#include "service/router/handlers/route_session_handler.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"
#include "service/router/handlers/messages.h"

namespace reprise::router {

absl::Status RouteSessionHandler::Handle(const Tenant& tenant,
                                         const v1::RouteSessionRequest& request,
                                         v1::RouteSessionResponse& response) const {
  if (request.session_id().size() > limits::kNameBytesMax) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SESSION_ID",
                   absl::StrCat("session_id has ", request.session_id().size(),
                                " bytes, more than kNameBytesMax = ", limits::kNameBytesMax,
                                ": send a hash of it"));
  }
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  RouteQuestion question = {.session_id = request.session_id(), .keys = keys};
  if (!request.fingerprint().empty()) {
    REPRISE_ASSIGN_OR_RETURN(question.fingerprint,
                             wire::FingerprintFromBytes(request.fingerprint(), "fingerprint"));
  }
  if (request.has_recompute()) {
    const v1::RecomputeCost& cost = request.recompute();
    if (cost.block_microseconds() == 0 || cost.block_bytes() == 0) {
      return Refusal(absl::StatusCode::kInvalidArgument, "RECOMPUTE_COST",
                     absl::StrCat("recompute has block_microseconds = ", cost.block_microseconds(),
                                  " and block_bytes = ", cost.block_bytes(),
                                  ": set both, or leave recompute unset"));
    }
    question.recompute = {.per_block = absl::Microseconds(cost.block_microseconds()),
                          .block_bytes = cost.block_bytes()};
  }
  REPRISE_ASSIGN_OR_RETURN(const Route route, engine_.RouteSession(tenant, question, clock_.Now()));
  ToMessage(route.home, *response.mutable_home());
  for (const ShardPlace& place : route.fallbacks) ToMessage(place, *response.add_fallbacks());
  ToMessage(route.runs, *response.mutable_runs());
  response.set_epoch(route.epoch.value);
  return absl::OkStatus();
}

}  // namespace reprise::router
