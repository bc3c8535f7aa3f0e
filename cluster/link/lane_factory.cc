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
std::unique_ptr<lanes::ViewLane> OpenView(const LaneOffer& offer) {
  if (offer.view_socket.empty()) return nullptr;
  absl::StatusOr<std::unique_ptr<lanes::ViewLane>> view =
      lanes::ViewLane::Connect({.socket = offer.view_socket, .attachment = offer.attachment},
                               std::min(offer.deadline, absl::Now() + limits::kViewHelloTimeout));
  return view.ok() ? *std::move(view) : nullptr;
}

// nullptr without a port. Whether it is in reach shows in the background.
std::unique_ptr<lanes::TcpLane> MakeTcp(const LaneOffer& offer) {
  if (offer.tcp_host.empty() || offer.tcp_port == 0) return nullptr;
  absl::StatusOr<std::unique_ptr<lanes::TcpLane>> tcp =
      lanes::TcpLane::Create({.host = offer.tcp_host,
                              .port = offer.tcp_port,
                              .attachment = offer.attachment,
                              .key = offer.tcp_key});
  if (!tcp.ok()) return nullptr;
  (*tcp)->Ready();
  return *std::move(tcp);
}

bool Offers(const LaneOffer& offer, LaneKind kind) {
  return std::find(offer.lanes.begin(), offer.lanes.end(), kind) != offer.lanes.end();
}

// Both ends as lane choice sees them for one job. A view socket is offered to callers on the
// shard's own machine alone. Which of a shard's blocks are in device memory only the shard knows:
// a caller in device memory takes it that they are, and a lane that finds otherwise gives way to
// the next one. Where device memory cannot be mapped (containers), NCCL is wanted instead.
lanes::FallbackLane::Order OrderOver(std::vector<LaneKind> offered, const lanes::ViewLane* view,
                                     lanes::TcpLane* tcp, lanes::LinkedLane* nccl) {
  return [end = lanes::LaneEnd{.lanes = std::move(offered), .host_id = lanes::ThisHostId()}, view,
          tcp, nccl](const lanes::LaneJob& job, const lanes::LaneRates& rates) {
    lanes::LaneEnd both = end;
    if (tcp == nullptr || !tcp->Ready()) std::erase(both.lanes, LaneKind::kTcp);
    both.memory = job.caller;
    const bool mapped = view != nullptr && (nccl == nullptr || !view->device_memory_refused());
    lanes::LaneConditions now{.view_socket_connected = view != nullptr,
                              .device_peer_access = mapped,
                              .rates = rates,
                              .job_bytes = job.bytes};
    if (nccl != nullptr) {
      now.nccl_link = nccl->link_state();
      if (lanes::WantsNcclLink(both, both, now)) nccl->Prepare();
    }
    return lanes::ChooseLanes(both, both, now);
  };
}

}  // namespace

LinkLane MakeLane(const LaneOffer& offer) {
  LinkLane link;
  std::vector<std::unique_ptr<lanes::Lane>> all;
  std::unique_ptr<lanes::ViewLane> opened =
      Offers(offer, LaneKind::kView) ? OpenView(offer) : nullptr;
  const lanes::ViewLane* view = opened.get();
  if (opened != nullptr) all.push_back(std::move(opened));
  lanes::LinkedLane* nccl = nullptr;
  if (offer.nccl != nullptr && Offers(offer, LaneKind::kNccl)) {
    std::unique_ptr<lanes::LinkedLane> made = offer.nccl->MakeLane(offer.channel, offer.attachment);
    nccl = made.get();
    link.close = nccl->Closer();
    all.push_back(std::move(made));
  }
  std::unique_ptr<lanes::TcpLane> made = Offers(offer, LaneKind::kTcp) ? MakeTcp(offer) : nullptr;
  link.tcp = made.get();
  if (made != nullptr) all.push_back(std::move(made));
  if (all.empty() || Offers(offer, LaneKind::kStream)) {
    all.push_back(std::make_unique<lanes::StreamLane>(offer.channel, offer.attachment));
  }
  link.lane = std::make_unique<lanes::FallbackLane>(std::move(all),
                                                    OrderOver(offer.lanes, view, link.tcp, nccl));
  return link;
}

}  // namespace reprise::cluster
