#include "cluster/link/lane_factory.h"

#include <utility>

#include "cluster/lanes/fallback_lane.h"
#include "cluster/lanes/stream/stream_lane.h"

namespace reprise::cluster {

std::unique_ptr<lanes::Lane> MakeLane(const LaneOffer& offer) {
  std::vector<std::unique_ptr<lanes::Lane>> best_first;
  best_first.push_back(std::make_unique<lanes::StreamLane>(offer.channel, offer.attachment));
  return std::make_unique<lanes::FallbackLane>(std::move(best_first));
}

}  // namespace reprise::cluster
