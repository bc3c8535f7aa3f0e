// RouterService.Describe.
//
// Thread safety: Handle may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cluster/membership/membership.h"
#include "proto/types/clock.h"
#include "proto/types/ids.h"
#include "reprise/v1/router.pb.h"
#include "service/router/router_engine.h"

namespace reprise::router {

class DescribeHandler {
 public:
  DescribeHandler(const RouterEngine& engine, const cluster::Membership& membership,
                  const Clock& clock)
      : engine_(engine), membership_(membership), clock_(clock), started_(clock.Now()) {}
  absl::Status Handle(const Tenant& tenant, const v1::RouterServiceDescribeRequest& request,
                      v1::RouterServiceDescribeResponse& response) const;

 private:
  const RouterEngine& engine_;
  const cluster::Membership& membership_;
  const Clock& clock_;
  const absl::Time started_;
};

}  // namespace reprise::router
