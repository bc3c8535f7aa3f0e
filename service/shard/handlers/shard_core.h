// What every handler works with: one shard process's parts, as the service wires them.
//
// Thread safety: each part has its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cluster/lanes/stream/chunk_pool.h"
#include "cluster/lanes/tcp/tcp_server.h"
#include "proto/types/ids.h"
#include "proto/wire/caller.h"
#include "service/shard/admission.h"
#include "service/shard/counted_host.h"
#include "service/shard/handlers/attachments.h"
#include "service/shard/handlers/byte_streams.h"
#include "service/shard/shard_engine.h"
#include "service/shard/shard_snapshot.h"

namespace reprise::shard {

class ShardPeers;

struct ShardCore {
  ShardEngine& engine;
  ShardId id;
  uint32_t replication = 1;
  wire::AccessPolicy access;
  uint64_t incarnation = 0;  // random: ids of another life of this shard are void
  absl::Time started;
  std::vector<LaneKind> lanes = {LaneKind::kStream};  // best first
  std::vector<AbsentLane> absent_lanes;
  std::string host_id;                            // boot id of this machine
  std::string view_socket;                        // empty: no view lane
  lanes::TcpServer* tcp = nullptr;                // nullptr: no tcp lane
  std::function<LanesUse()> lanes_use;            // of the lanes beside the service; may be empty
  std::function<void(AttachmentId)> on_detached;  // may be empty
  ShardPeers* peers = nullptr;                    // nullptr: this shard is alone
  std::function<void()> start_draining;           // set by the server

  CountedHost stream_host{engine};
  const std::shared_ptr<Admission> admission = Admission::Create();
  const std::shared_ptr<ByteStreams> byte_streams = ByteStreams::Create();
  const std::shared_ptr<lanes::ChunkPool> staging = lanes::ChunkPool::Create();
  Attachments attachments;
  std::atomic<bool> draining = false;
};

}  // namespace reprise::shard
