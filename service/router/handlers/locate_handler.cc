#include "service/router/handlers/locate_handler.h"

#include <vector>

#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"
#include "service/router/handlers/messages.h"

namespace reprise::router {

absl::Status LocateHandler::Handle(const Tenant& tenant, const v1::LocateRequest& request,
                                   v1::LocateResponse& response) const {
  REPRISE_ASSIGN_OR_RETURN(const Fingerprint fingerprint,
                           wire::FingerprintFromBytes(request.fingerprint(), "fingerprint"));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  const Located located = engine_.Locate({tenant, fingerprint}, keys, clock_.Now());
  ToMessage(located.runs, *response.mutable_runs());
  response.set_epoch(located.epoch.value);
  return absl::OkStatus();
}

}  // namespace reprise::router
