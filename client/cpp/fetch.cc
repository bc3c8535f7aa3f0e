// Reads the blocks of a run into the caller's memory: from several shards at once where several
// have them, over several connections to one where its lane has them, and from another shard when
// one fails.
#include <algorithm>
#include <atomic>
#include <set>

#include "absl/strings/str_cat.h"
#include "client/cpp/call_policy.h"
#include "client/cpp/client_core.h"
#include "client/cpp/device_sink.h"
#include "client/cpp/fetch_plan.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

// Where a block came from; written by one piece's thread, read after all pieces are done.
struct Delivered {
  bool verified = false;
  LaneKind lane = LaneKind::kStream;
  Tier tier = Tier::kDram;
  uint32_t segment = 0;
};

class Reader {
 public:
  Reader(const CorePtr& core, Run& run, const FetchCall& call, const CallContext& context)
      : core_(core),
        run_(run),
        call_(call),
        context_(context),
        layout_(run.origin().spec->stored),
        on_device_(call.memory.device != kernels::kHostMemory),
        segments_(run.segments()),
        usable_(segments_.size(), true),
        delivered_(call.count) {}

  FetchResult Read() {
    bool rescued = false;
    while (Verified() < call_.count && Continue()) {
      if (ReadRound()) continue;
      if (rescued || !Continue() || !Rescue()) break;
      rescued = true;
    }
    return Result();
  }

 private:
  // A wrong checksum ends the run; so do the caller, its GPU and the clock.
  bool Continue() {
    if (corrupt_ > 0 || gpu_failed_) return false;
    const absl::Status status = context_.Check();
    if (!status.ok()) Note(status);
    return status.ok();
  }

  uint32_t Verified() const {
    uint32_t blocks = 0;
    while (blocks < call_.count && delivered_[blocks].verified) ++blocks;
    return blocks;
  }

  // Reads what is missing from all segments that are usable. False when none has the next block.
  bool ReadRound() {
    std::vector<SourceRange> sources;
    for (size_t s = 0; s < segments_.size(); ++s) {
      sources.push_back(usable_[s] ? SourceRange{segments_[s].first, segments_[s].end,
                                                 segments_[s].link->lane().flows()}
                                   : SourceRange{});
    }
    const auto plan =
        CutForFlows(PlanFetch(sources, call_.first + Verified(), call_.first + call_.count),
                    sources, layout_.block_bytes);
    if (plan.empty()) return false;
    // They share what a link carries.
    at_once_ = static_cast<uint32_t>(plan.size());
    std::vector<absl::Status> statuses(plan.size());
    std::vector<std::function<void()>> tasks;
    for (size_t i = 0; i < plan.size(); ++i) {
      tasks.push_back([this, &plan, &statuses, i] { statuses[i] = ReadPiece(plan[i]); });
    }
    core_->executor.RunAll(std::move(tasks));
    const bool first_time = !asked_again_;
    for (size_t i = 0; i < plan.size(); ++i) {
      if (statuses[i].ok()) continue;
      Note(statuses[i]);
      if (RefusalReason(statuses[i]) == "BLOCK_CORRUPT") ++corrupt_;
      if (kernels::IsGpuFailure(statuses[i])) gpu_failed_ = true;
      if (first_time && TooMuchAtOnce(plan, statuses, i)) {
        asked_again_ = true;
        continue;
      }
      usable_[plan[i].source] = false;
    }
    return true;
  }

  // A shard that refused one piece and served another had too much to do at once.
  static bool TooMuchAtOnce(std::span<const FetchPiece> plan,
                            std::span<const absl::Status> statuses, size_t refused) {
    if (!absl::IsResourceExhausted(statuses[refused])) return false;
    for (size_t i = 0; i < plan.size(); ++i) {
      if (plan[i].source == plan[refused].source && statuses[i].ok()) return true;
    }
    return false;
  }

  // In chunks, so that a shard that hangs is told from one that has much to send.
  absl::Status ReadPiece(const FetchPiece& piece) {
    for (uint32_t at = piece.first; at < piece.end;) {
      REPRISE_RETURN_IF_ERROR(context_.Check());
      const uint32_t chunk = ChunkBlocks(segments_[piece.source]);
      uint32_t progress = 0;
      const absl::Status status =
          ReadChunk(piece.source, at, std::min(chunk, piece.end - at), progress);
      // Slow is not hung: what sends is read from for as long as the caller has time.
      if (!status.ok() && !(absl::IsDeadlineExceeded(status) && progress > 0)) return status;
      at += progress;
    }
    return absl::OkStatus();
  }

  // Device memory is moved faster than many small calls are answered.
  uint32_t ChunkBlocks(const Segment& segment) const {
    const bool may_be_device = on_device_ && !IsHostNetwork(segment.link->lane().kind());
    const uint64_t bytes = may_be_device ? limits::kDeviceChunkBytes : limits::kTransferChunkBytes;
    return static_cast<uint32_t>(std::max<uint64_t>(1, bytes / layout_.block_bytes));
  }

  // Sets `progress` to the number of blocks that are in place and verified.
  absl::Status ReadChunk(uint32_t source, uint32_t first, uint32_t blocks, uint32_t& progress) {
    const Segment& segment = segments_[source];
    const absl::Time started = absl::Now();
    const uint64_t bytes = uint64_t{blocks} * layout_.block_bytes;
    const absl::Time deadline = std::min(
        context_.deadline,
        started + StallLimit(at_once_ * std::min<uint64_t>(bytes, limits::kTransferChunkBytes)));
    const absl::Status status = ReadInto(source,
                                         {.lease = segment.lease,
                                          .first = first,
                                          .blocks = blocks,
                                          .block_bytes = layout_.block_bytes},
                                         deadline, progress);
    // Late, but sending: the caller's deadline was short, and nothing is wrong with the shard. Nor
    // is when the caller's GPU fails.
    const bool sending = absl::IsDeadlineExceeded(status) && progress > 0;
    const bool blameless =
        sending || kernels::IsGpuFailure(status) || RefusalReason(status) == "CALLER_STREAM_BUSY";
    core_->shards.Report(segment.address, segment.link,
                         blameless ? absl::CancelledError("") : status, deadline - started);
    return status;
  }

  absl::Status ReadInto(uint32_t source, const lanes::ReadJob& job, absl::Time deadline,
                        uint32_t& progress) {
    const Segment& segment = segments_[source];
    const BlockTransfer transfer{.memory = &call_.memory,
                                 .layout = &layout_,
                                 .codec = run_.origin().spec->codec_or_null(),
                                 .staging = &core_->staging,
                                 .first = job.first - call_.first,
                                 .deadline = on_device_ ? context_.deadline : deadline};
    const auto checksums =
        std::span(segment.checksums).subspan(job.first - segment.first, job.blocks);
    lanes::Lane& lane = segment.link->lane();
    const lanes::BlockSink* asked = nullptr;
    const auto verified = [&](uint32_t i) {
      delivered_[transfer.first + i] = {false, asked->carried_by().value_or(lane.kind()),
                                        segment.TierOf(job.first + i), source};
      return context_.Check();
    };
    const auto placed = [&](uint32_t i) {
      delivered_[transfer.first + i].verified = true;
      ++progress;
    };
    if (!on_device_) {
      VerifyingSink sink(transfer, checksums, [&](uint32_t i) {
        absl::Status status = verified(i);
        placed(i);
        return status;
      });
      asked = &sink;
      REPRISE_RETURN_IF_ERROR(sink.Prepare());
      return lane.Read(job, sink, deadline);
    }
    DeviceSink sink(transfer, core_->device_workspaces, checksums, {verified, placed});
    asked = &sink;
    REPRISE_RETURN_IF_ERROR(sink.Prepare());
    const absl::Status status = lane.Read(job, sink, deadline);
    const absl::Status finished = sink.Finish();
    return finished.ok() ? status : finished;
  }

  // Leases what is missing from a shard that did not fail yet.
  bool Rescue() {
    const RunOrigin& origin = run_.origin();
    std::vector<std::string> failed;
    for (size_t s = 0; s < segments_.size(); ++s) {
      if (!usable_[s]) failed.push_back(segments_[s].address);
    }
    AcquireCall call{.spec = origin.spec,
                     .keys = origin.keys,
                     .session = origin.session,
                     .first_block = call_.first + Verified(),
                     .timeout = absl::ZeroDuration()};
    absl::StatusOr<Segment> segment = AcquireElsewhere(core_, call, failed, context_.deadline);
    if (!segment.ok()) return false;
    first_rescued_ = static_cast<uint32_t>(segments_.size());
    run_.Add(*segment);
    segments_.push_back(*std::move(segment));
    usable_.push_back(true);
    return true;
  }

  void Note(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

  FetchResult Result() {
    FetchResult result;
    result.blocks = Verified();
    result.corrupt = corrupt_;
    result.bytes = uint64_t{result.blocks} * layout_.block_bytes;
    std::map<std::string, uint64_t> by_shard;
    uint64_t rescued = 0;
    for (uint32_t i = 0; i < result.blocks; ++i) {
      const Delivered& block = delivered_[i];
      ++result.by_lane[static_cast<size_t>(block.lane)];
      ++result.by_tier[static_cast<size_t>(block.tier)];
      ++by_shard[segments_[block.segment].link->shard_id().name];
      rescued += block.segment >= first_rescued_ ? 1 : 0;
    }
    result.shards = static_cast<uint32_t>(by_shard.size());
    if (result.blocks < call_.count) result.status = status_;
    Count(result, by_shard, rescued);
    return result;
  }

  void Count(const FetchResult& result, const std::map<std::string, uint64_t>& by_shard,
             uint64_t rescued) {
    Counters& counters = core_->counters;
    counters.fetches += 1;
    counters.blocks_fetched += result.blocks;
    counters.bytes_fetched += result.bytes;
    counters.blocks_corrupt += result.corrupt;
    counters.blocks_rescued += rescued;
    for (size_t i = 0; i < kLaneKinds; ++i) counters.blocks_by_lane[i] += result.by_lane[i];
    for (size_t i = 0; i < kTiers; ++i) counters.blocks_by_tier[i] += result.by_tier[i];
    for (const auto& [shard, blocks] : by_shard) counters.CountFromShard(shard, blocks);
    if (!result.status.ok()) counters.calls_failed += 1;
    if (absl::IsDeadlineExceeded(result.status)) counters.calls_late += 1;
  }

  const CorePtr& core_;
  Run& run_;
  const FetchCall& call_;
  const CallContext& context_;
  const BlockLayout& layout_;
  const bool on_device_;
  std::vector<Segment> segments_;
  std::vector<bool> usable_;
  std::vector<Delivered> delivered_;  // by block of the call
  uint32_t first_rescued_ = ~uint32_t{0};
  uint32_t at_once_ = 1;      // pieces that are read side by side
  bool asked_again_ = false;  // a shard that had too much to do
  uint32_t corrupt_ = 0;
  bool gpu_failed_ = false;
  absl::Status status_;
};

}  // namespace

absl::Status CheckFetch(const Run& run, const FetchCall& call) {
  if (call.first < run.first_block() || call.first > run.blocks() ||
      call.count > run.blocks() - call.first) {
    return Refusal(absl::StatusCode::kInvalidArgument, "FETCH_RANGE",
                   absl::StrCat("blocks [", call.first, ", ", uint64_t{call.first} + call.count,
                                ") are not all among the leased [", run.first_block(), ", ",
                                run.blocks(), "): fetch what was acquired"));
  }
  const ClientSpec& spec = *run.origin().spec;
  return call.memory.Check(spec.layout, call.count, spec.codec_or_null());
}

FetchResult FetchRun(const CorePtr& core, Run& run, const FetchCall& call,
                     const CallContext& context) {
  return Reader(core, run, call, context).Read();
}

}  // namespace reprise::client
