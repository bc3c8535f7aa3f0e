#include "service/shard/engine_target.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

// An attachment of the shard to itself, for one pull.
class OwnAttachment {
 public:
  static absl::StatusOr<std::unique_ptr<OwnAttachment>> Create(ShardEngine& engine,
                                                               const cluster::ReplicationJob& job) {
    REPRISE_ASSIGN_OR_RETURN(const AttachmentId id, engine.Attach(job.tenant, "puller"));
    auto attachment = std::make_unique<OwnAttachment>(engine, id);
    REPRISE_ASSIGN_OR_RETURN(attachment->spec_, engine.OpenSpec(id, job.spec, std::nullopt));
    return attachment;
  }
  OwnAttachment(ShardEngine& engine, AttachmentId id) : engine_(engine), id_(id) {}
  ~OwnAttachment() { engine_.Detach(id_); }
  OwnAttachment(const OwnAttachment&) = delete;
  OwnAttachment& operator=(const OwnAttachment&) = delete;

  AttachmentId id() const { return id_; }
  const OpenSpecResult& spec() const { return spec_; }

 private:
  ShardEngine& engine_;
  const AttachmentId id_;
  OpenSpecResult spec_;
};

struct Granted {
  ReservationId reservation;
  uint32_t first = 0;
  std::vector<lanes::PinnedSlot> slots;  // of `first` and those after it
};

// The slots that were granted, as a lane fills them. When all of them lie in device memory, lanes
// that can hand over device memory do so.
class SlotSink final : public lanes::BlockSink {
 public:
  SlotSink(ShardEngine& engine, AttachmentId attachment, Granted granted, int gpu)
      : engine_(engine), attachment_(attachment), granted_(std::move(granted)), gpu_(gpu) {}

  const Granted& granted() const { return granted_; }
  uint32_t filled() const { return filled_; }

  lanes::MemoryKind memory() const override {
    const auto in_device = [](const lanes::PinnedSlot& slot) {
      return slot.memory == lanes::MemoryKind::kDevice;
    };
    return std::all_of(granted_.slots.begin(), granted_.slots.end(), in_device)
               ? lanes::MemoryKind::kDevice
               : lanes::MemoryKind::kHost;
  }
  int device() const override { return gpu_; }

  std::span<uint8_t> Buffer(uint32_t i) override {
    const lanes::PinnedSlot& slot = granted_.slots.at(i);
    if (slot.memory == lanes::MemoryKind::kHost) return slot.bytes;
    staged_.resize(slot.bytes.size());
    return staged_;
  }
  absl::Status Complete(uint32_t i) override {
    const lanes::PinnedSlot& slot = granted_.slots.at(i);
    if (slot.memory != lanes::MemoryKind::kHost) {
      REPRISE_RETURN_IF_ERROR(engine_.CopyToDevice(staged_, slot.bytes));
    }
    return Came(i);
  }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    const lanes::PinnedSlot& slot = granted_.slots.at(i);
    REPRISE_CHECK(bytes.size() == slot.bytes.size());
    if (slot.memory != lanes::MemoryKind::kHost) {
      REPRISE_RETURN_IF_ERROR(engine_.CopyToDevice(bytes, slot.bytes));
    } else {
      std::memcpy(slot.bytes.data(), bytes.data(), bytes.size());
    }
    return Came(i);
  }
  absl::Status DeliverDevice(uint32_t first,
                             std::span<const std::span<const uint8_t>> blocks) override {
    for (const std::span<const uint8_t> block : blocks) {
      const lanes::PinnedSlot& slot = granted_.slots.at(first);
      REPRISE_RETURN_IF_ERROR(engine_.CopyToDevice(block, slot.bytes));
      REPRISE_RETURN_IF_ERROR(Came(first++));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Came(uint32_t i) {
    // A long chain may take longer than an attachment may be silent.
    REPRISE_RETURN_IF_ERROR(engine_.KeepAlive(attachment_));
    REPRISE_RETURN_IF_ERROR(engine_.Written(attachment_, granted_.reservation, granted_.first + i,
                                            granted_.slots[i].bytes.size()));
    filled_ = i + 1;
    return absl::OkStatus();
  }

  ShardEngine& engine_;
  const AttachmentId attachment_;
  const Granted granted_;
  const int gpu_;
  uint32_t filled_ = 0;
  std::vector<uint8_t> staged_;  // one block on its way to where the CPU does not reach
};

class EngineSlots final : public cluster::ChainSlots {
 public:
  EngineSlots(ShardEngine& engine, std::unique_ptr<OwnAttachment> attachment, Granted granted,
              int gpu)
      : engine_(engine),
        attachment_(std::move(attachment)),
        sink_(engine, attachment_->id(), std::move(granted), gpu) {}

  uint32_t first() const override { return sink_.granted().first; }
  uint32_t end() const override {
    return first() + static_cast<uint32_t>(sink_.granted().slots.size());
  }
  uint64_t block_bytes() const override { return attachment_->spec().block_bytes; }
  lanes::BlockSink& sink() override { return sink_; }
  uint32_t filled() const override { return sink_.filled(); }

  absl::Status Commit(std::span<const Checksum128> checksums) override {
    std::vector<uint32_t> blocks(filled());
    std::iota(blocks.begin(), blocks.end(), first());
    return engine_
        .Commit(
            attachment_->id(),
            {.reservation = sink_.granted().reservation, .blocks = blocks, .checksums = checksums})
        .status();
  }

 private:
  ShardEngine& engine_;
  const std::unique_ptr<OwnAttachment> attachment_;  // outlives the slots
  SlotSink sink_;
};

absl::StatusOr<Granted> Grant(ShardEngine& engine, const OwnAttachment& attachment,
                              const cluster::ReplicationJob& job) {
  REPRISE_ASSIGN_OR_RETURN(const ReserveResult reserved,
                           engine.Reserve(attachment.id(), {.spec = attachment.spec().handle,
                                                            .keys = job.keys,
                                                            .session_id = job.session_id,
                                                            .token_ids = job.token_ids,
                                                            .replica = true}));
  const auto& outcomes = reserved.outcomes;
  const auto first = std::find_if(outcomes.begin(), outcomes.end(), [](ReserveOutcome outcome) {
    return outcome != ReserveOutcome::kPresent;
  });
  Granted granted{.reservation = reserved.reservation,
                  .first = static_cast<uint32_t>(first - outcomes.begin())};
  for (auto at = first; at != outcomes.end() && *at == ReserveOutcome::kGranted; ++at) {
    REPRISE_ASSIGN_OR_RETURN(
        lanes::PinnedSlot slot,
        engine.OpenWrite(attachment.id(), reserved.reservation,
                         granted.first + static_cast<uint32_t>(granted.slots.size())));
    granted.slots.push_back(std::move(slot));
  }
  return granted;
}

}  // namespace

absl::StatusOr<uint32_t> EngineTarget::Stored(const cluster::ReplicationJob& job) {
  REPRISE_ASSIGN_OR_RETURN(const auto attachment, OwnAttachment::Create(engine_, job));
  REPRISE_ASSIGN_OR_RETURN(const LookupResult found,
                           engine_.Lookup(attachment->id(), attachment->spec().handle, job.keys));
  return found.run_blocks;
}

absl::StatusOr<std::unique_ptr<cluster::ChainSlots>> EngineTarget::Reserve(
    const cluster::ReplicationJob& job) {
  REPRISE_ASSIGN_OR_RETURN(auto attachment, OwnAttachment::Create(engine_, job));
  REPRISE_ASSIGN_OR_RETURN(Granted granted, Grant(engine_, *attachment, job));
  return std::make_unique<EngineSlots>(engine_, std::move(attachment), std::move(granted), gpu_);
}

}  // namespace reprise::shard
