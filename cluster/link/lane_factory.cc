#include "cluster/link/lane_factory.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "cluster/lanes/fallback_lane.h"
#include "cluster/lanes/lane_choice.h"
#include "cluster/lanes/stream/stream_lane.h"
#include "cluster/lanes/view/view_lane.h"
#include "proto/types/limits.h"

namespace reprise::cluster {

namespace {

// nullptr when the shard's socket is out of reach.
std::unique_ptr<lanes::Lane> OpenView(const LaneOffer& offer) {
  if (offer.view_socket.empty()) return nullptr;
  absl::StatusOr<std::unique_ptr<lanes::ViewLane>> view =
      lanes::ViewLane::Connect({.socket = offer.view_socket, .attachment = offer.attachment},
                               std::min(offer.deadline, absl::Now() + limits::kViewHelloTimeout));
  return view.ok() ? *std::move(view) : nullptr;
}

}  // namespace

std::unique_ptr<lanes::Lane> MakeLane(const LaneOffer& offer) {
  std::unique_ptr<lanes::Lane> view = OpenView(offer);
  // A view socket is offered to callers on the shard's own machine alone.
  const lanes::LaneEnd end{.lanes = offer.lanes, .host_id = lanes::ThisHostId()};
  std::vector<std::unique_ptr<lanes::Lane>> best_first;
  for (const LaneKind kind :
       lanes::ChooseLanes(end, end, {.view_socket_connected = view != nullptr})) {
    if (kind == LaneKind::kView) best_first.push_back(std::move(view));
    if (kind == LaneKind::kStream) {
      best_first.push_back(std::make_unique<lanes::StreamLane>(offer.channel, offer.attachment));
    }
  }
  if (best_first.empty()) {
    best_first.push_back(std::make_unique<lanes::StreamLane>(offer.channel, offer.attachment));
  }
  return std::make_unique<lanes::FallbackLane>(std::move(best_first));
}

}  // namespace reprise::cluster
