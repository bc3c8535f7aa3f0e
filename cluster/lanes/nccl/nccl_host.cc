#include "cluster/lanes/nccl/nccl_host.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status NoSuchLink() {
  return Refusal(absl::StatusCode::kNotFound, kNcclLinkUnknown,
                 "this attachment has no such link: it failed or was closed; connect a new one");
}

}  // namespace

struct NcclHost::Pins {
  std::vector<std::shared_ptr<const void>> pins;
};

// One link and what its caller may still ask about.
struct NcclHost::Served {
  AttachmentId attachment;
  std::unique_ptr<NcclLink> link;

  absl::Mutex mu;  // held while a group is opened: groups of one link come one by one
  uint64_t next_sequence ABSL_GUARDED_BY(mu) = 1;
  // The latest write, until Finish.
  NcclOpenCall write ABSL_GUARDED_BY(mu);
  std::shared_ptr<NcclLink::Pending> write_pending ABSL_GUARDED_BY(mu);
};

NcclHost::NcclHost(Options options) : options_(std::move(options)) {}

NcclHost::~NcclHost() {
  absl::flat_hash_map<NcclLinkId, std::shared_ptr<Served>> links;
  {
    absl::MutexLock lock(&mu_);
    links.swap(links_);
  }
  // All at once, since each may take its time.
  for (const auto& [id, served] : links) served->link->Close();
}

void NcclHost::ForgetClosed() {
  absl::erase_if(links_, [](const auto& entry) { return entry.second->link->closed(); });
}

absl::Status NcclHost::Connect(AttachmentId attachment, const NcclConnectCall& call) {
  auto served = std::make_shared<Served>();
  served->attachment = attachment;
  absl::MutexLock lock(&mu_);
  ForgetClosed();
  REPRISE_RETURN_IF_ERROR(HasRoomFor(attachment));
  if (!call.link || links_.contains(call.link)) {
    return Refusal(absl::StatusCode::kAlreadyExists, "LINK_KNOWN",
                   "link_id is 0 or in use: draw a random one");
  }
  LinkState::Options state = options_.state;
  state.rebuild = false;
  // Closed by the caller, which has the shorter patience; this is for a caller that forgot.
  state.idle_max = 2 * state.idle_max;
  served->link = std::make_unique<NcclLink>(
      NcclLink::Options{.nccl = options_.nccl,
                        .device = options_.device,
                        .rank = 1,
                        .rendezvous = [id = call.id](MonotonicDeadline) { return id; },
                        .failed = [counts = counts_] { ++counts->link_failures; },
                        .state = state,
                        .stop_grace = options_.stop_grace});
  served->link->Want();
  links_.emplace(call.link, std::move(served));
  return absl::OkStatus();
}

absl::Status NcclHost::HasRoomFor(AttachmentId attachment) const {
  const auto own = std::count_if(links_.begin(), links_.end(), [&](const auto& entry) {
    return entry.second->attachment == attachment;
  });
  const bool too_many_here = links_.size() >= limits::kNcclLinksMax;
  if (!too_many_here && own < static_cast<std::ptrdiff_t>(limits::kNcclLinksPerAttachmentMax)) {
    return absl::OkStatus();
  }
  return Refusal(
      absl::StatusCode::kResourceExhausted, "NCCL_LINKS",
      absl::StrCat(too_many_here ? "this shard" : "this attachment", " has its ",
                   too_many_here ? limits::kNcclLinksMax : limits::kNcclLinksPerAttachmentMax,
                   " links: use the stream lane, links that nobody uses are closed"));
}

std::shared_ptr<NcclHost::Served> NcclHost::Find(AttachmentId attachment, NcclLinkId link) const {
  absl::MutexLock lock(&mu_);
  const auto it = links_.find(link);
  return it == links_.end() || it->second->attachment != attachment ? nullptr : it->second;
}

absl::StatusOr<NcclOpened> NcclHost::Open(AttachmentId attachment, const NcclOpenCall& call,
                                          MonotonicDeadline deadline) {
  const std::shared_ptr<Served> served = Find(attachment, call.link);
  if (served == nullptr) return NoSuchLink();
  absl::MutexLock lock(&served->mu);
  if (call.sequence != served->next_sequence || call.count == 0 ||
      call.count > limits::kNcclGroupBlocksMax ||
      (call.writes() && call.blocks.size() != call.count)) {
    served->link->Fail("NCCL: the caller asked for a group out of turn");
    return Refusal(absl::StatusCode::kInvalidArgument, "NCCL_SEQUENCE",
                   absl::StrCat("sequence = ", call.sequence, ", the next is ",
                                served->next_sequence, ", or the group's blocks are not 1 to ",
                                limits::kNcclGroupBlocksMax, ": connect a new link"));
  }
  ++served->next_sequence;
  return OpenNext(*served, call, deadline);
}

absl::StatusOr<NcclOpened> NcclHost::OpenNext(Served& served, const NcclOpenCall& call,
                                              MonotonicDeadline deadline) {
  const auto pins = std::make_shared<Pins>();
  NcclGroup group;
  NcclOpened opened;
  opened.status =
      call.writes() ? OpenWrite(served, call, *pins, group) : OpenRead(served, call, *pins, group);
  opened.count = static_cast<uint32_t>(group.sends.size() + group.receives.size());
  if (opened.count == 0) return opened;
  // The caller is gone, and nobody would be at the other end of the group.
  if (deadline.over()) {
    served.link->Fail("NCCL: the shard opened a group after its deadline");
    return absl::DeadlineExceededError("NCCL: the deadline is over");
  }
  const auto done = [counts = counts_, writes = call.writes(), blocks = opened.count,
                     bytes = opened.count * call.block_bytes] {
    (writes ? counts->blocks_received : counts->blocks_sent) += blocks;
    (writes ? counts->bytes_received : counts->bytes_sent) += bytes;
  };
  absl::StatusOr<std::shared_ptr<NcclLink::Pending>> pending = served.link->Submit(
      {.group = std::move(group), .keep = pins, .done = done, .deadline = deadline});
  // Nothing of the group is queued, and its number is used: the ends are in step.
  if (absl::IsResourceExhausted(pending.status())) return NcclOpened{.status = pending.status()};
  if (!pending.ok()) return pending.status();
  if (call.writes()) {
    served.write = call;
    served.write.blocks.resize(opened.count);
    served.write_pending = *std::move(pending);
  }
  return opened;
}

absl::Status NcclHost::OpenRead(Served& served, const NcclOpenCall& call, Pins& pins,
                                NcclGroup& group) {
  REPRISE_ASSIGN_OR_RETURN(
      std::vector<PinnedBytes> blocks,
      options_.host->OpenRead(served.attachment, call.lease, call.first, call.count));
  NcclGroup sends;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const uint32_t index = call.first + static_cast<uint32_t>(i);
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(index, blocks[i].bytes.size(), call.block_bytes));
    if (blocks[i].memory != options_.device->memory())
      return LaneDown("NCCL: the block is not in device memory");
    sends.sends.push_back(blocks[i].bytes);
    pins.pins.push_back(std::move(blocks[i].pin));
  }
  group = std::move(sends);
  return absl::OkStatus();
}

absl::Status NcclHost::OpenWrite(Served& served, const NcclOpenCall& call, Pins& pins,
                                 NcclGroup& group) {
  for (const uint32_t block : call.blocks) {
    REPRISE_ASSIGN_OR_RETURN(PinnedSlot slot,
                             options_.host->OpenWrite(served.attachment, call.reservation, block));
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(block, slot.bytes.size(), call.block_bytes));
    if (slot.memory != options_.device->memory())
      return LaneDown("NCCL: the slot is not in device memory");
    group.receives.push_back(slot.bytes);
    pins.pins.push_back(std::move(slot.pin));
  }
  return absl::OkStatus();
}

absl::Status NcclHost::Finish(AttachmentId attachment, NcclLinkId link, uint64_t sequence,
                              MonotonicDeadline deadline) {
  const std::shared_ptr<Served> served = Find(attachment, link);
  if (served == nullptr) return NoSuchLink();
  NcclOpenCall write;
  std::shared_ptr<NcclLink::Pending> pending;
  {
    absl::MutexLock lock(&served->mu);
    if (served->write_pending == nullptr || served->write.sequence != sequence) return NoSuchLink();
    write = std::move(served->write);
    pending = std::move(served->write_pending);
  }
  REPRISE_RETURN_IF_ERROR(served->link->Await(*pending, deadline));
  for (const uint32_t block : write.blocks) {
    REPRISE_RETURN_IF_ERROR(
        options_.host->Written(attachment, write.reservation, block, write.block_bytes));
  }
  return absl::OkStatus();
}

void NcclHost::Hangup(AttachmentId attachment, NcclLinkId link) {
  if (const std::shared_ptr<Served> served = Find(attachment, link)) served->link->Close();
}

void NcclHost::EndAttachment(AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  for (const auto& [id, served] : links_) {
    if (served->attachment == attachment) served->link->Close();
  }
}

NcclHost::Moved NcclHost::moved() const {
  return {.blocks_sent = counts_->blocks_sent,
          .bytes_sent = counts_->bytes_sent,
          .blocks_received = counts_->blocks_received,
          .bytes_received = counts_->bytes_received,
          .link_failures = counts_->link_failures};
}

size_t NcclHost::links() const {
  absl::MutexLock lock(&mu_);
  return static_cast<size_t>(std::count_if(links_.begin(), links_.end(), [](const auto& entry) {
    return !entry.second->link->closed();
  }));
}

}  // namespace reprise::lanes
