// RouterService.Locate.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "proto/types/clock.h"
#include "proto/types/ids.h"
#include "reprise/v1/router.pb.h"
#include "service/router/router_engine.h"

namespace reprise::router {

class LocateHandler {
 public:
  LocateHandler(const RouterEngine& engine, const Clock& clock) : engine_(engine), clock_(clock) {}
  absl::Status Handle(const Tenant& tenant, const v1::LocateRequest& request,
                      v1::LocateResponse& response) const;

 private:
  const RouterEngine& engine_;
  const Clock& clock_;
};

}  // namespace reprise::router
