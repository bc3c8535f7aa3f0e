#include "cluster/lanes/nccl/nccl_lane.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status Over() {
  return absl::DeadlineExceededError("NCCL lane: the deadline is over");
}

NcclLinkId RandomLinkId() {
  uint64_t value = 0;
  while (value == 0) {
    if (::getrandom(&value, sizeof(value), 0) != sizeof(value)) value = 0;
  }
  return NcclLinkId(value);
}

// What went wrong beside the link, as this lane's caller is told: the lane is down, or time is.
absl::Status AsLaneFailure(const absl::Status& why, MonotonicDeadline deadline) {
  if (deadline.over()) return Over();
  return IsLaneDown(why) ? why : LaneDown(absl::StrCat("NCCL lane: ", why.message()));
}

}  // namespace

// What the shard and this end call the current communicator. The link's thread has it too, and may
// outlive the lane.
struct NcclLane::Session {
  Session(std::shared_ptr<const NcclLibrary> n, std::shared_ptr<NcclControl> c)
      : nccl(std::move(n)), control(std::move(c)) {}

  // On the link's thread, before each try.
  absl::StatusOr<ncclUniqueId> Rendezvous(MonotonicDeadline deadline) {
    Hangup();
    NcclConnectCall call{.link = RandomLinkId()};
    {
      absl::MutexLock lock(&mu);
      link = call.link;
      next_sequence = 1;
    }
    REPRISE_RETURN_IF_ERROR(nccl->ToStatus(nccl->GetUniqueId(&call.id), "ncclGetUniqueId"));
    REPRISE_RETURN_IF_ERROR(control->Connect(call, deadline));
    return call.id;
  }

  void Hangup() {
    NcclLinkId old;
    {
      absl::MutexLock lock(&mu);
      old = std::exchange(link, NcclLinkId());
    }
    if (old) control->Hangup(old);
  }

  void Number(NcclOpenCall& call) {
    absl::MutexLock lock(&mu);
    call.link = link;
    call.sequence = next_sequence++;
  }

  const std::shared_ptr<const NcclLibrary> nccl;
  const std::shared_ptr<NcclControl> control;
  absl::Mutex mu;
  NcclLinkId link ABSL_GUARDED_BY(mu);
  uint64_t next_sequence ABSL_GUARDED_BY(mu) = 1;
};

// The right to use the link, for one call.
class NcclLane::Turn {
 public:
  explicit Turn(NcclLane& lane) : lane_(lane) {}
  ~Turn() {
    if (!taken_) return;
    absl::MutexLock lock(&lane_.mu_);
    lane_.busy_ = false;
  }

  absl::Status Take(MonotonicDeadline deadline) {
    if (deadline.over()) return Over();
    absl::MutexLock lock(&lane_.mu_);
    if (!lane_.mu_.AwaitWithTimeout(absl::Condition(
                                        +[](bool* busy) { return !*busy; }, &lane_.busy_),
                                    deadline.left())) {
      return Over();
    }
    if (lane_.link_->state() != NcclLinkState::kUp) {
      lane_.link_->Want();
      return LaneDown(
          absl::StrCat("NCCL lane: the link is ", NcclLinkStateName(lane_.link_->state())));
    }
    lane_.busy_ = taken_ = true;
    return absl::OkStatus();
  }

 private:
  NcclLane& lane_;
  bool taken_ = false;
};

absl::StatusOr<std::unique_ptr<NcclLane>> NcclLane::Create(Options options) {
  REPRISE_RETURN_IF_ERROR(options.device->Enter());
  REPRISE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMemory> landing,
                           options.device->Allocate(options.landing_bytes));
  return std::unique_ptr<NcclLane>(new NcclLane(std::move(options), std::move(landing)));
}

NcclLane::NcclLane(Options options, std::shared_ptr<DeviceMemory> landing)
    : options_(std::move(options)),
      landing_(std::move(landing)),
      session_(std::make_shared<Session>(options_.nccl, options_.control)) {
  link_ = std::make_unique<NcclLink>(NcclLink::Options{
      .nccl = options_.nccl,
      .device = options_.device,
      .rank = 0,
      .rendezvous = [session = session_](
                        MonotonicDeadline deadline) { return session->Rendezvous(deadline); },
      .state = options_.state,
      .stop_grace = options_.stop_grace});
}

NcclLane::~NcclLane() {
  // The shard first: its half of a group that is under way need not wait for a deadline.
  session_->Hangup();
  link_.reset();
}

absl::StatusOr<uint32_t> NcclLane::BlocksPerGroup(uint64_t block_bytes) const {
  const uint64_t blocks = block_bytes == 0 ? 0 : landing_->bytes().size() / block_bytes;
  if (blocks == 0)
    return LaneDown(absl::StrCat("NCCL lane: a block of ", block_bytes, " bytes does not fit"));
  return static_cast<uint32_t>(std::min<uint64_t>(blocks, limits::kNcclGroupBlocksMax));
}

std::span<uint8_t> NcclLane::Landing(uint32_t i, uint64_t block_bytes) const {
  return landing_->bytes().subspan(i * block_bytes, block_bytes);
}

absl::StatusOr<NcclOpened> NcclLane::Open(NcclOpenCall& call, MonotonicDeadline deadline) {
  session_->Number(call);
  absl::StatusOr<NcclOpened> opened = options_.control->Open(call, deadline);
  // Whether the shard has queued its half is not known: only a new link is in step again.
  if (!opened.ok()) return AsLaneFailure(Break(opened.status()), deadline);
  if (opened->count > call.count)
    return Break(LaneDown("NCCL lane: the shard opened more than was asked"));
  return opened;
}

absl::Status NcclLane::Break(const absl::Status& why) {
  link_->Fail(why.message());
  session_->Hangup();
  return why;
}

absl::Status NcclLane::Run(NcclGroup group, MonotonicDeadline deadline) {
  const absl::StatusOr<std::shared_ptr<NcclLink::Pending>> pending =
      link_->Submit({.group = std::move(group), .keep = landing_, .deadline = deadline});
  const absl::Status status = pending.ok() ? link_->Await(**pending, deadline) : pending.status();
  return status.ok() ? status : AsLaneFailure(Break(status), deadline);
}

absl::Status NcclLane::ReadGroup(const ReadJob& job, uint32_t done, uint32_t count,
                                 MonotonicDeadline deadline) {
  NcclOpenCall call{.lease = job.lease,
                    .first = job.first + done,
                    .count = count,
                    .block_bytes = job.block_bytes};
  REPRISE_ASSIGN_OR_RETURN(const NcclOpened opened, Open(call, deadline));
  if (opened.count == 0) return opened.status;
  if (opened.count != count) return Break(LaneDown("NCCL lane: the shard opened a part of a read"));
  NcclGroup group;
  for (uint32_t i = 0; i < count; ++i) group.receives.push_back(Landing(i, job.block_bytes));
  return Run(std::move(group), deadline);
}

absl::Status NcclLane::DeliverGroup(BlockSink& sink, uint32_t first, uint32_t count,
                                    uint64_t block_bytes, MonotonicDeadline deadline) {
  if (sink.memory() == MemoryKind::kDevice) {
    std::vector<std::span<const uint8_t>> blocks;
    for (uint32_t i = 0; i < count; ++i) blocks.push_back(Landing(i, block_bytes));
    return sink.DeliverDevice(first, blocks);
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (deadline.over()) return Over();
    REPRISE_RETURN_IF_ERROR(sink.Deliver(first + i, Landing(i, block_bytes)));
  }
  return absl::OkStatus();
}

absl::Status NcclLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline_time) {
  if (sink.memory() != options_.device->memory())
    return LaneDown("NCCL lane: the sink is in other memory");
  const MonotonicDeadline deadline(deadline_time);
  Turn turn(*this);
  REPRISE_RETURN_IF_ERROR(turn.Take(deadline));
  REPRISE_ASSIGN_OR_RETURN(const uint32_t per_group, BlocksPerGroup(job.block_bytes));
  for (uint32_t done = 0; done < job.blocks;) {
    const uint32_t count = std::min(per_group, job.blocks - done);
    REPRISE_RETURN_IF_ERROR(ReadGroup(job, done, count, deadline));
    if (deadline.over()) return Over();
    REPRISE_RETURN_IF_ERROR(DeliverGroup(sink, done, count, job.block_bytes, deadline));
    done += count;
  }
  return absl::OkStatus();
}

absl::Status NcclLane::WriteGroup(NcclOpenCall call, MonotonicDeadline deadline) {
  REPRISE_ASSIGN_OR_RETURN(const NcclOpened opened, Open(call, deadline));
  if (opened.count > 0) {
    NcclGroup group;
    for (uint32_t i = 0; i < opened.count; ++i) group.sends.push_back(Landing(i, call.block_bytes));
    REPRISE_RETURN_IF_ERROR(Run(std::move(group), deadline));
    // The shard's own words (the reservation is over, say) are the caller's to hear.
    const absl::Status finished = options_.control->Finish(call.link, call.sequence, deadline);
    if (deadline.over()) return finished.ok() ? absl::OkStatus() : Over();
    REPRISE_RETURN_IF_ERROR(finished);
  }
  return opened.count == call.count ? absl::OkStatus() : opened.status;
}

// Blocks of the source in the landing memory; `status` says why not all.
uint32_t NcclLane::FillGroup(BlockSource& source, uint32_t first, uint32_t count,
                             uint64_t block_bytes, absl::Status& status) {
  if (source.memory() == MemoryKind::kDevice) {
    std::vector<std::span<uint8_t>> slots;
    for (uint32_t i = 0; i < count; ++i) slots.push_back(Landing(i, block_bytes));
    status = source.FillDevice(first, slots);
    return status.ok() ? count : 0;
  }
  for (uint32_t i = 0; i < count; ++i) {
    status = source.Fill(first + i, Landing(i, block_bytes));
    if (!status.ok()) return i;
  }
  return count;
}

absl::Status NcclLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline_time) {
  if (source.memory() != options_.device->memory())
    return LaneDown("NCCL lane: the source is in other memory");
  const MonotonicDeadline deadline(deadline_time);
  Turn turn(*this);
  REPRISE_RETURN_IF_ERROR(turn.Take(deadline));
  REPRISE_ASSIGN_OR_RETURN(const uint32_t per_group, BlocksPerGroup(job.block_bytes));
  absl::Status filled;
  for (size_t done = 0; done < job.blocks.size() && filled.ok();) {
    const size_t count = std::min<size_t>(per_group, job.blocks.size() - done);
    NcclOpenCall call{.reservation = job.reservation, .block_bytes = job.block_bytes};
    if (deadline.over()) return Over();
    call.count = FillGroup(source, static_cast<uint32_t>(done), static_cast<uint32_t>(count),
                           job.block_bytes, filled);
    call.blocks.assign(job.blocks.begin() + done, job.blocks.begin() + done + call.count);
    if (call.count > 0) REPRISE_RETURN_IF_ERROR(WriteGroup(std::move(call), deadline));
    done += count;
  }
  return filled;
}

}  // namespace reprise::lanes
