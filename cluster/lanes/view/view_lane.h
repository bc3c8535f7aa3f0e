// The caller's end of the view lane: on the shard's own machine, sinks read leased blocks and
// sources fill reserved slots where they lie, in host memory or in a GPU's. One message each way
// per call (a write tells once more when it is done), none per block.
//
// Blocks in device memory go to a sink in device memory, and are filled by a source in device
// memory, a consecutive run of them at a time. For a sink or source in host memory they are copied,
// one at a time. Where this process cannot map the shard's device memory (device_extents.h), a call
// ends with LANE_DOWN at the first such block, and the next lane goes on from there. Blocks in host
// memory go to a sink in device memory, and come from a source there, by the GPU's copy engine once
// their extent is pinned (pinned_extents.h), and one at a time through the CPU until then.
//
// Order of memory between two processes on a GPU: a source has waited for its GPU when FillDevice
// returns (lane.h), and Written is said after that; the shard hears Written before it commits, and
// only a kernel launched after that, its checksum's, reads the slot. The other way round the shard
// has waited for its GPU before a block can be leased.
//
// Invariants: blocks of one call stay pinned at the shard until the call is over; when the socket
// cannot be reached or says nonsense, every call is UNAVAILABLE (LANE_DOWN) at once, and it is
// tried again after limits::kViewRetryAfter. Thread safety: calls may run in parallel, up to
// limits::kViewConnectionsPerLaneMax at one time; others wait.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/lanes/connection_pool.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/view/device_extents.h"
#include "cluster/lanes/view/extent_map.h"
#include "cluster/lanes/view/pinned_extents.h"
#include "cluster/lanes/view/view_socket.h"
#include "proto/types/limits.h"

namespace reprise::lanes {

class ViewLane final : public Lane {
 public:
  struct Options {
    std::string socket;  // ViewServer::address() of the shard
    AttachmentId attachment;
  };

  // UNAVAILABLE (LANE_DOWN) when the shard's socket is out of reach: another machine, another
  // network namespace, another user.
  static absl::StatusOr<std::unique_ptr<ViewLane>> Connect(Options options, absl::Time deadline);

  LaneKind kind() const override { return LaneKind::kView; }
  absl::Status Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) override;
  absl::Status Write(const WriteJob& job, BlockSource& source, absl::Time deadline) override;

  // The shard's device memory could not be mapped lately.
  bool device_memory_refused() const { return device_extents_.Refused(); }

 private:
  class Conversation;

  explicit ViewLane(Options options)
      : options_(std::move(options)),
        connections_({.lane = "view lane",
                      .connections_max = limits::kViewConnectionsPerLaneMax,
                      .retry_after = limits::kViewRetryAfter,
                      .dial = [this](MonotonicDeadline deadline) { return Dial(deadline); }}) {}
  absl::StatusOr<view::ViewSocket> Dial(MonotonicDeadline deadline);

  absl::Status ReadDevice(Conversation& conversation, const ReadJob& job,
                          std::span<const view::Place> places, BlockSink& sink, uint32_t& read);
  absl::Status WriteDevice(Conversation& conversation, const WriteJob& job,
                           std::span<const view::Place> places, BlockSource& source,
                           uint32_t& filled);
  // Gives a sink in device memory what it reaches of the places from `first` on by itself, and
  // counts those that were tried in `i`.
  absl::Status ReadPinned(Conversation& conversation, const ReadJob& job,
                          std::span<const view::Place> places, BlockSink& sink, uint32_t& read);
  // The same of slots from `filled` on, and of those that were filled.
  absl::Status WritePinned(Conversation& conversation, const WriteJob& job,
                           std::span<const view::Place> places, BlockSource& source,
                           uint32_t& filled);
  // Has a source in device memory fill slots that its device reaches; counts those that it filled.
  using FillMany = absl::Status (BlockSource::*)(uint32_t, std::span<const std::span<uint8_t>>);
  static absl::Status WriteRun(const Conversation& conversation, BlockSource& source,
                               FillMany fill_many, const std::vector<uint8_t*>& at,
                               uint64_t block_bytes, uint32_t& filled);

  const Options options_;
  view::ExtentMap extents_;
  view::DeviceExtents device_extents_;
  view::PinnedExtents pinned_extents_;
  ConnectionPool<view::ViewSocket> connections_;
};

}  // namespace reprise::lanes
