#include "service/shard/handlers/explain_handler.h"

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"
#include "proto/wire/verbs.h"

namespace reprise::shard {

absl::Status ExplainHandler::Handle(const wire::Caller& caller, const v1::ExplainRequest& request,
                                    v1::ExplainResponse& response) {
  REPRISE_ASSIGN_OR_RETURN(const Fingerprint fingerprint,
                           wire::FingerprintFromBytes(request.fingerprint(), "fingerprint"));
  REPRISE_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, UnpackKeys(request.keys(), "keys"));
  if (keys.empty()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "KEYS_EMPTY",
                   "keys is empty: name the blocks to explain");
  }
  REPRISE_ASSIGN_OR_RETURN(
      const Explanation explanation,
      core_.engine.Explain(caller.tenant, fingerprint, keys, wire::Span(request.token_ids())));
  response = wire::ToMessage(explanation);
  response.set_shard_id(core_.id.name);
  return absl::OkStatus();
}

}  // namespace reprise::shard
