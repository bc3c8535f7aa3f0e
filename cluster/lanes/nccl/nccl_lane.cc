#include "cluster/lanes/nccl/nccl_lane.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status Over() {
  return absl::DeadlineExceededError("NCCL lane: the deadline is over");
}

absl::Status LinkIsDown() {
  return LaneDown("NCCL lane: the link is down");
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

// A shard that has too much to do now has a stream, and the link is as good as before.
absl::Status OtherLaneIfBusy(const absl::Status& said) {
  return absl::IsResourceExhausted(said) ? LaneDown(absl::StrCat("NCCL lane: ", said.message()))
                                         : said;
}

absl::Status Deliver(BlockSink& sink, uint32_t first,
                     std::span<const std::span<const uint8_t>> blocks, MonotonicDeadline deadline) {
  if (sink.memory() == MemoryKind::kDevice) return sink.DeliverDevice(first, blocks);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (deadline.over()) return Over();
    REPRISE_RETURN_IF_ERROR(sink.Deliver(first + static_cast<uint32_t>(i), blocks[i]));
  }
  return absl::OkStatus();
}

// Fills slots one after the other; `status` says why not all. Returns how many are filled.
size_t FillFrom(BlockSource& source, uint32_t first, std::span<const std::span<uint8_t>> slots,
                absl::Status& status) {
  if (source.memory() == MemoryKind::kDevice) {
    status = source.FillDevice(first, slots);
    return status.ok() ? slots.size() : 0;
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    status = source.Fill(first + static_cast<uint32_t>(i), slots[i]);
    if (!status.ok()) return i;
  }
  return slots.size();
}

}  // namespace

// What the shard and this end call the current communicator. The link's thread has it too, and may
// outlive the lane.
struct NcclLane::Session {
  explicit Session(const Options& o)
      : nccl(o.nccl),
        control(o.control),
        cap(o.cap),
        device(o.device),
        landing_bytes(o.landing_bytes) {}

  // On the link's thread, before each try.
  absl::StatusOr<ncclUniqueId> Rendezvous(MonotonicDeadline deadline) {
    Hangup();
    NcclConnectCall call{.link = RandomLinkId()};
    std::shared_ptr<const void> admitted = cap == nullptr ? nullptr : cap->Take();
    if (cap != nullptr && admitted == nullptr) {
      return LaneDown(absl::StrCat("NCCL lane: this process has its ", cap->links_max(), " links"));
    }
    {
      absl::MutexLock lock(&mu);
      admission = std::move(admitted);
      link = call.link;
      next_sequence = 1;
    }
    REPRISE_RETURN_IF_ERROR(nccl->ToStatus(nccl->GetUniqueId(&call.id), "ncclGetUniqueId"));
    const absl::Status connected = control->Connect(call, deadline);
    if (connected.ok()) return call.id;
    // The shard may have heard the call and not the Hangup of somebody who closed meanwhile.
    control->Hangup(call.link);
    return connected;
  }

  void Hangup() {
    NcclLinkId old;
    {
      absl::MutexLock lock(&mu);
      old = std::exchange(link, NcclLinkId());
    }
    if (old) control->Hangup(old);
  }

  // False when `which` is not the link any more: another one may have taken its place.
  bool HangupOf(NcclLinkId which) {
    {
      absl::MutexLock lock(&mu);
      if (link != which) return false;
      link = NcclLinkId();
    }
    control->Hangup(which);
    return true;
  }

  // False when the link is down.
  bool Number(NcclOpenCall& call) {
    absl::MutexLock lock(&mu);
    if (!link) return false;
    call.link = link;
    call.sequence = next_sequence++;
    return true;
  }

  // The shard has not seen the call: the next one has its number.
  void TakeBack(const NcclOpenCall& call) {
    absl::MutexLock lock(&mu);
    if (link == call.link && next_sequence == call.sequence + 1) next_sequence = call.sequence;
  }

  // Device memory for blocks, which the link's end gives back.
  absl::StatusOr<std::shared_ptr<DeviceMemory>> Landing() {
    {
      absl::MutexLock lock(&mu);
      if (landing != nullptr) return landing;
    }
    REPRISE_RETURN_IF_ERROR(device->Enter());
    absl::StatusOr<std::unique_ptr<DeviceMemory>> made = device->Allocate(landing_bytes);
    if (!made.ok()) return LaneDown(absl::StrCat("NCCL lane: ", made.status().message()));
    absl::MutexLock lock(&mu);
    // The link's end has been here already: what came after it nobody would give back.
    if (!link) return LinkIsDown();
    landing = *std::move(made);
    return landing;
  }

  // On the link's thread, after an abort.
  void Released() {
    std::shared_ptr<const void> no_admission;
    std::shared_ptr<DeviceMemory> no_landing;
    absl::MutexLock lock(&mu);
    admission.swap(no_admission);
    landing.swap(no_landing);
  }

  const std::shared_ptr<const NcclLibrary> nccl;
  const std::shared_ptr<NcclControl> control;
  const std::shared_ptr<LinkCap> cap;
  const std::shared_ptr<NcclDevice> device;
  const uint64_t landing_bytes;
  absl::Mutex mu;
  std::shared_ptr<const void> admission ABSL_GUARDED_BY(mu);
  std::shared_ptr<DeviceMemory> landing ABSL_GUARDED_BY(mu);
  NcclLinkId link ABSL_GUARDED_BY(mu);
  uint64_t next_sequence ABSL_GUARDED_BY(mu) = 1;
};

// The right to use the link, for one call.
class NcclLane::Turn {
 public:
  Turn(NcclLane& lane, uint64_t bytes) : lane_(lane), bytes_(bytes) {}
  ~Turn() {
    if (!taken_) return;
    absl::MutexLock lock(&lane_.mu_);
    lane_.busy_ = false;
  }

  // Waits for the call before this one while that one is in time: a peer that is dead costs the
  // call that finds out its deadline, and the others nothing but a short look.
  absl::Status Take(MonotonicDeadline deadline) {
    if (deadline.over()) return Over();
    absl::MutexLock lock(&lane_.mu_);
    while (lane_.busy_) {
      const absl::Duration patience =
          std::min(deadline.left(), lane_.due_ - MonotonicClock().Now());
      if (patience <= absl::ZeroDuration()) break;
      lane_.mu_.AwaitWithTimeout(absl::Condition(
                                     +[](bool* busy) { return !*busy; }, &lane_.busy_),
                                 patience);
    }
    if (deadline.over()) return Over();
    if (lane_.busy_) return LaneDown("NCCL lane: the call that has the link is late");
    if (lane_.link_->state() != NcclLinkState::kUp) {
      lane_.link_->Want();
      return LaneDown(
          absl::StrCat("NCCL lane: the link is ", NcclLinkStateName(lane_.link_->state())));
    }
    lane_.busy_ = taken_ = true;
    started_ = MonotonicClock().Now();
    lane_.due_ = started_ + lane_.TimeFor(bytes_);
    return absl::OkStatus();
  }

  // All of the call's blocks have moved.
  void Done() {
    absl::MutexLock lock(&lane_.mu_);
    const absl::Time now = MonotonicClock().Now();
    lane_.rate_.Add(LaneKind::kNccl, bytes_, now - started_, now);
  }

  // How many blocks fit into the landing memory, one group's at most. LANE_DOWN when not one does.
  absl::StatusOr<uint32_t> Land(uint64_t block_bytes) {
    if (landing_ == nullptr) {
      REPRISE_ASSIGN_OR_RETURN(landing_, lane_.session_->Landing());
    }
    const uint64_t blocks = block_bytes == 0 ? 0 : landing_->bytes().size() / block_bytes;
    if (blocks == 0)
      return LaneDown(absl::StrCat("NCCL lane: a block of ", block_bytes, " bytes does not fit"));
    return static_cast<uint32_t>(std::min<uint64_t>(blocks, limits::kNcclGroupBlocksMax));
  }
  std::span<uint8_t> Landing(uint32_t i, uint64_t block_bytes) const {
    return landing_->bytes().subspan(i * block_bytes, block_bytes);
  }
  const std::shared_ptr<DeviceMemory>& landing() const { return landing_; }

 private:
  NcclLane& lane_;
  const uint64_t bytes_;
  absl::Time started_;
  bool taken_ = false;
  std::shared_ptr<DeviceMemory> landing_;
};

// What a write's next group sends: the first blocks of what is left.
struct NcclLane::Outgoing {
  std::vector<std::span<const uint8_t>> blocks;
  std::shared_ptr<const void> keep;
  absl::Status status;  // why there is not one more; OK: there may be
};

NcclLane::NcclLane(Options options)
    : options_(std::move(options)), session_(std::make_shared<Session>(options_)) {
  link_ = std::make_unique<NcclLink>(NcclLink::Options{
      .nccl = options_.nccl,
      .device = options_.device,
      .rank = 0,
      .rendezvous = [session = session_](
                        MonotonicDeadline deadline) { return session->Rendezvous(deadline); },
      .interrupt = [control = options_.control] { control->Interrupt(); },
      .down = [session = session_] { session->Hangup(); },
      .failed =
          [cap = options_.cap] {
            if (cap != nullptr) cap->NoteFailure();
          },
      .released = [session = session_] { session->Released(); },
      .state = options_.state,
      .stop_grace = options_.stop_grace});
}

NcclLane::~NcclLane() {
  // The shard first: its half of a group that is under way need not wait for a deadline.
  session_->Hangup();
  link_.reset();
}

absl::Duration NcclLane::TimeFor(uint64_t bytes) const {
  const double seen = rate_.At(MonotonicClock().Now()).nccl;
  const double rate = seen > 0 ? seen : limits::kNcclBytesPerSecond;
  return std::max(limits::kNcclLateMin,
                  limits::kNcclLateFactor * absl::Seconds(static_cast<double>(bytes) / rate));
}

absl::StatusOr<NcclOpened> NcclLane::Open(NcclOpenCall& call, MonotonicDeadline deadline) {
  if (!session_->Number(call)) return LinkIsDown();
  absl::StatusOr<NcclOpened> opened = options_.control->Open(call, deadline);
  if (RefusalReason(opened.status()) == kNcclCallsRefusal) {
    session_->TakeBack(call);
    return OtherLaneIfBusy(opened.status());
  }
  // Whether the shard has queued its half is not known: only a new link is in step again.
  if (!opened.ok()) return AsLaneFailure(Break(call.link, opened.status()), deadline);
  if (opened->count > call.count)
    return Break(call.link, LaneDown("NCCL lane: the shard opened more than was asked"));
  if (opened->count < call.count && opened->status.ok())
    return Break(call.link, LaneDown("NCCL lane: the shard opened less and does not say why"));
  opened->status = OtherLaneIfBusy(opened->status);
  return opened;
}

absl::Status NcclLane::Break(NcclLinkId link, const absl::Status& why) {
  if (session_->HangupOf(link)) link_->Fail(why.message());
  return why;
}

absl::Status NcclLane::Run(NcclLinkId link, NcclGroup group, std::shared_ptr<const void> keep,
                           MonotonicDeadline deadline) {
  const absl::StatusOr<std::shared_ptr<NcclLink::Pending>> pending =
      link_->Submit({.group = std::move(group), .keep = std::move(keep), .deadline = deadline});
  const absl::Status status = pending.ok() ? link_->Await(**pending, deadline) : pending.status();
  return status.ok() ? status : AsLaneFailure(Break(link, status), deadline);
}

absl::Status NcclLane::ReadGroup(const ReadJob& job, uint32_t done, uint32_t count,
                                 const Turn& turn, MonotonicDeadline deadline) {
  NcclOpenCall call{.lease = job.lease,
                    .first = job.first + done,
                    .count = count,
                    .block_bytes = job.block_bytes};
  REPRISE_ASSIGN_OR_RETURN(const NcclOpened opened, Open(call, deadline));
  if (opened.count == 0) return opened.status;
  if (opened.count != count)
    return Break(call.link, LaneDown("NCCL lane: the shard opened a part of a read"));
  NcclGroup group;
  for (uint32_t i = 0; i < count; ++i) group.receives.push_back(turn.Landing(i, job.block_bytes));
  return Run(call.link, std::move(group), turn.landing(), deadline);
}

absl::Status NcclLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline_time) {
  if (sink.memory() != options_.device->memory() || !Reaches(sink.device()))
    return LaneDown("NCCL lane: the sink is in other memory");
  const MonotonicDeadline deadline(deadline_time);
  Turn turn(*this, job.blocks * job.block_bytes);
  REPRISE_RETURN_IF_ERROR(turn.Take(deadline));
  REPRISE_ASSIGN_OR_RETURN(const uint32_t per_group, turn.Land(job.block_bytes));
  for (uint32_t done = 0; done < job.blocks;) {
    const uint32_t count = std::min(per_group, job.blocks - done);
    REPRISE_RETURN_IF_ERROR(ReadGroup(job, done, count, turn, deadline));
    if (deadline.over()) return Over();
    std::vector<std::span<const uint8_t>> landed;
    for (uint32_t i = 0; i < count; ++i) landed.push_back(turn.Landing(i, job.block_bytes));
    REPRISE_RETURN_IF_ERROR(Deliver(sink, done, landed, deadline));
    done += count;
  }
  turn.Done();
  return absl::OkStatus();
}

absl::Status NcclLane::WriteGroup(NcclOpenCall call, Outgoing outgoing,
                                  MonotonicDeadline deadline) {
  REPRISE_ASSIGN_OR_RETURN(const NcclOpened opened, Open(call, deadline));
  if (opened.count > 0) {
    NcclGroup group{.sends = std::move(outgoing.blocks)};
    group.sends.resize(opened.count);
    REPRISE_RETURN_IF_ERROR(Run(call.link, std::move(group), std::move(outgoing.keep), deadline));
    REPRISE_RETURN_IF_ERROR(Finish(call, deadline));
  }
  return opened.count == call.count ? absl::OkStatus() : opened.status;
}

absl::Status NcclLane::Finish(const NcclOpenCall& call, MonotonicDeadline deadline) {
  const absl::Status finished = options_.control->Finish(call.link, call.sequence, deadline);
  if (finished.ok()) return finished;
  if (deadline.over()) return Over();
  // Its end of the link is gone, or this one is: whether the shard has the blocks is not known.
  if (RefusalReason(finished) == kNcclLinkUnknown || absl::IsCancelled(finished))
    return AsLaneFailure(Break(call.link, finished), deadline);
  // The shard's own words (the reservation is over, say) are the caller's to hear.
  return OtherLaneIfBusy(finished);
}

NcclLane::Outgoing NcclLane::Gather(BlockSource& source, uint32_t first, uint32_t blocks,
                                    uint64_t block_bytes, Turn& turn) {
  std::vector<PinnedBytes> pinned =
      source.Pinned(first, std::min<uint32_t>(blocks, limits::kNcclGroupBlocksMax));
  Outgoing outgoing;
  if (!pinned.empty()) {
    for (const PinnedBytes& block : pinned) {
      if (block.memory != options_.device->memory() || block.bytes.size() != block_bytes) {
        outgoing.status = LaneDown("NCCL lane: a block is in other memory");
        break;
      }
      outgoing.blocks.push_back(block.bytes);
    }
    outgoing.keep = std::make_shared<const std::vector<PinnedBytes>>(std::move(pinned));
    return outgoing;
  }
  // Pinned blocks are those of a shard, whose slots are on its NCCL's GPU. Whoever is asked to fill
  // does so with kernels on its own one.
  if (!Reaches(source.device()))
    return {.status = LaneDown("NCCL lane: the source is on another GPU")};
  const absl::StatusOr<uint32_t> room = turn.Land(block_bytes);
  if (!room.ok()) return {.status = room.status()};
  std::vector<std::span<uint8_t>> slots;
  for (uint32_t i = 0; i < std::min(*room, blocks); ++i) {
    slots.push_back(turn.Landing(i, block_bytes));
  }
  const size_t filled = FillFrom(source, first, slots, outgoing.status);
  outgoing.blocks.assign(slots.begin(), slots.begin() + static_cast<std::ptrdiff_t>(filled));
  outgoing.keep = turn.landing();
  return outgoing;
}

absl::Status NcclLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline_time) {
  if (source.memory() != options_.device->memory())
    return LaneDown("NCCL lane: the source is in other memory");
  const MonotonicDeadline deadline(deadline_time);
  Turn turn(*this, job.blocks.size() * job.block_bytes);
  REPRISE_RETURN_IF_ERROR(turn.Take(deadline));
  for (size_t done = 0; done < job.blocks.size();) {
    if (deadline.over()) return Over();
    Outgoing outgoing =
        Gather(source, static_cast<uint32_t>(done), static_cast<uint32_t>(job.blocks.size() - done),
               job.block_bytes, turn);
    const auto count = static_cast<uint32_t>(outgoing.blocks.size());
    const absl::Status gathered = outgoing.status;
    if (count > 0) {
      const auto from = job.blocks.begin() + static_cast<std::ptrdiff_t>(done);
      REPRISE_RETURN_IF_ERROR(WriteGroup({.reservation = job.reservation,
                                          .blocks = {from, from + count},
                                          .count = count,
                                          .block_bytes = job.block_bytes},
                                         std::move(outgoing), deadline));
    }
    REPRISE_RETURN_IF_ERROR(gathered);
    done += count;
  }
  turn.Done();
  return absl::OkStatus();
}

}  // namespace reprise::lanes
