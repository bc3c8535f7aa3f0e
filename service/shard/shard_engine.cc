#include "service/shard/shard_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quantize/spec_codec.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "service/pool/dram_pool.h"
#include "service/pool/file_pool.h"
#include "service/pool/hbm_pool.h"
#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

absl::StatusOr<std::unique_ptr<ShardEngine>> ShardEngine::Create(ShardEngineOptions options) {
  std::vector<std::unique_ptr<Pool>> fastest_first;
  PinMemory pin;
  if (options.hbm_bytes > 0) {
    REPRISE_CHECK(options.hbm_device != nullptr);
    // The pools live and end together.
    pin = [device = options.hbm_device.get()](uint8_t* memory, uint64_t bytes) {
      return device->Pin(memory, bytes);
    };
    REPRISE_ASSIGN_OR_RETURN(fastest_first.emplace_back(),
                             HbmPool::Create(std::move(options.hbm_device), options.hbm_bytes));
  }
  if (options.dram_bytes > 0 || fastest_first.empty()) {
    REPRISE_ASSIGN_OR_RETURN(fastest_first.emplace_back(),
                             DramPool::Create(options.dram_bytes, std::move(pin)));
  }
  std::unique_ptr<KeptDisk> kept;
  if (options.nvme_bytes > 0) {
    FilePoolOptions file{.folder = options.nvme_folder,
                         .capacity_bytes = options.nvme_bytes,
                         .cipher = options.nvme_cipher};
    if (options.nvme_keep) {
      REPRISE_ASSIGN_OR_RETURN(
          kept,
          KeptDisk::Open({.folder = options.nvme_folder,
                          .shard = options.id,
                          .extent_bytes = FilePool::GeometryFor(options.nvme_bytes).extent_bytes,
                          .key = std::move(options.nvme_key)}));
      file.kept = KeptFile{.fd = kept->blocks_fd(), .key = kept->BlocksKey()};
    }
    REPRISE_ASSIGN_OR_RETURN(fastest_first.emplace_back(), FilePool::Create(std::move(file)));
  }
  const bool keeps = kept != nullptr;
  auto engine = std::make_unique<ShardEngineImpl>(
      std::move(options), std::make_shared<TieredPool>(std::move(fastest_first)), std::move(kept));
  if (keeps) REPRISE_RETURN_IF_ERROR(engine->StartKeeping());
  return engine;
}

ShardEngineImpl::ShardEngineImpl(ShardEngineOptions options, std::shared_ptr<TieredPool> pool,
                                 std::unique_ptr<KeptDisk> kept)
    : options_(std::move(options)),
      clock_(options_.clock == nullptr ? MonotonicClock() : *options_.clock),
      pool_(std::move(pool)),
      pins_(std::make_shared<PinBoard>(this, pool_)),
      order_(options_.eviction),
      sizing_(SizingHorizonBytes(*pool_)),
      pinned_blocks_(pool_->levels()),
      kept_(std::move(kept)) {
  if (options_.background_eviction) evictor_ = std::thread([this] { EvictLoop(); });
}

ShardEngineImpl::~ShardEngineImpl() {
  Close().IgnoreError();
  pins_->Close();
}

ShardEngineImpl::Locked::Locked(ShardEngineImpl* engine) : engine_(engine) {
  engine_->mu_.Lock();
}

ShardEngineImpl::Locked::~Locked() {
  engine_->PublishRemoved();
  if (std::exchange(engine_->pressure_moved_, false) && !engine_->evict_wanted_ &&
      engine_->UnderPressure()) {
    engine_->evict_wanted_ = true;
    engine_->evict_cv_.Signal();
  }
  std::vector<std::shared_ptr<WatchQueue>> to_notify = std::exchange(engine_->to_notify_, {});
  engine_->mu_.Unlock();
  for (const std::shared_ptr<WatchQueue>& queue : to_notify) queue->Notify();
}

absl::StatusOr<AttachmentId> ShardEngineImpl::Attach(const Tenant& tenant,
                                                     absl::string_view client_name) {
  absl::StatusOr<AttachmentId> id = attachments_.Add(
      {.tenant = tenant, .client_name = std::string(client_name), .last_seen = clock_.Now()});
  if (!id.ok()) {
    counters_.Add(Counter::kRefusedAttachments);
    return id;
  }
  Locked lock(this);
  holdings_[*id];
  return id;
}

absl::Status ShardEngineImpl::KeepAlive(AttachmentId attachment) {
  const absl::Time now = clock_.Now();
  Locked lock(this);
  Settle(now);  // what is over stays over
  return attachments_.Seen(attachment, now);
}

void ShardEngineImpl::Detach(AttachmentId attachment) {
  const std::vector<KeySpaceId> spaces = attachments_.Remove(attachment);
  Locked lock(this);
  const auto it = holdings_.find(attachment);
  if (it == holdings_.end()) return;
  const Holdings holdings = std::move(it->second);
  holdings_.erase(it);
  for (LeaseId lease : holdings.leases) EndLease(lease);
  for (ReservationId reservation : holdings.reservations) EndReservation(reservation);
  for (KeySpaceId space : spaces) --SpaceOf(space).open_handles;
}

absl::StatusOr<OpenSpecResult> ShardEngineImpl::OpenSpec(
    AttachmentId attachment, const CacheSpec& spec, const std::optional<Fingerprint>& expected) {
  REPRISE_ASSIGN_OR_RETURN(const AttachmentTable::Entry who, attachments_.Get(attachment));
  REPRISE_RETURN_IF_ERROR(ValidateSpec(spec));
  REPRISE_ASSIGN_OR_RETURN(const auto codec, kernels::CodecOf(spec));
  const Fingerprint fingerprint = FingerprintOf(spec);
  const BlockLayout layout = kernels::StoredLayoutOf(spec, codec);
  Locked lock(this);
  if (expected.has_value() && *expected != fingerprint) {
    counters_.Add(Counter::kRefusedSpecDiffers);
    return CheckExpected(who.tenant, spec, fingerprint, *expected);
  }
  if (SlotAllocator::SlotBytes(layout.block_bytes) > pool_->extent_bytes_max()) {
    counters_.Add(Counter::kRefusedSpecs);
    return Refusal(
        absl::StatusCode::kFailedPrecondition, "BLOCK_TOO_LARGE",
        absl::StrCat("spec makes blocks of ", layout.block_bytes,
                     " bytes and this shard's memory comes in pieces of ",
                     pool_->extent_bytes_max(), ": start the shard with --dram of at least ",
                     limits::kExtentsPerPool * (layout.block_bytes + limits::kExtentBytesMin),
                     " bytes, or choose fewer block_tokens"));
  }
  REPRISE_RETURN_IF_ERROR(HoldingsOf(attachment).status());
  absl::StatusOr<KeySpaceId> space = FindOrAddSpace(who.tenant, spec, layout, fingerprint);
  absl::StatusOr<AttachmentTable::Handle> handle =
      space.ok() ? attachments_.Open(attachment, *space) : space.status();
  if (!handle.ok()) {
    counters_.Add(Counter::kRefusedSpecs);
    return handle.status();
  }
  if (handle->is_new) ++SpaceOf(*space).open_handles;
  return OpenSpecResult{
      .handle = handle->handle, .fingerprint = fingerprint, .block_bytes = layout.block_bytes};
}

absl::Status ShardEngineImpl::CheckExpected(const Tenant& tenant, const CacheSpec& spec,
                                            const Fingerprint& actual,
                                            const Fingerprint& expected) {
  const KeySpace* known = FindSpace(tenant, expected);
  if (known == nullptr) {
    return Refusal(absl::StatusCode::kFailedPrecondition, "FINGERPRINT_UNKNOWN",
                   absl::StrCat("expected_fingerprint = ", ToHex(expected),
                                " is not this spec's, which is ", ToHex(actual),
                                ", and no spec with it is known here: leave it unset, or send the "
                                "spec that it belongs to"));
  }
  const std::optional<SpecDifference> difference = FirstDifference(spec, known->spec);
  REPRISE_CHECK(difference.has_value());
  return Refusal(absl::StatusCode::kFailedPrecondition, "SPEC_DIFFERS",
                 absl::StrCat("spec.", difference->field, " = \"", difference->left,
                              "\", but the spec with expected_fingerprint ", ToHex(expected),
                              " has \"", difference->right,
                              "\": make the two engines agree, or leave expected_fingerprint unset "
                              "to use a key space of its own"));
}

KeySpace* ShardEngineImpl::FindSpace(const Tenant& tenant, const Fingerprint& fingerprint) const {
  const auto spaces = space_ids_.find(tenant);
  if (spaces == space_ids_.end()) return nullptr;
  const auto it = spaces->second.find(fingerprint);
  return it == spaces->second.end() ? nullptr : &SpaceOf(it->second);
}

absl::StatusOr<KeySpaceId> ShardEngineImpl::FindOrAddSpace(const Tenant& tenant,
                                                           const CacheSpec& spec,
                                                           const BlockLayout& layout,
                                                           const Fingerprint& fingerprint) {
  if (const KeySpace* known = FindSpace(tenant, fingerprint); known != nullptr) return known->id;
  if (space_ids_[tenant].size() >= limits::kSpecsPerTenantMax && !DropUnusedSpace(tenant)) {
    return Refusal(absl::StatusCode::kResourceExhausted, "SPECS_PER_TENANT_MAX",
                   absl::StrCat("this tenant has kSpecsPerTenantMax = ", limits::kSpecsPerTenantMax,
                                " cache specs in use: detach clients that use old ones"));
  }
  const KeySpaceId id(next_space_++);
  auto space = std::make_unique<KeySpace>();
  const auto& known = space_ids_[tenant];
  space->tally =
      known.empty() ? std::make_shared<TenantTally>() : SpaceOf(known.begin()->second).tally;
  space->id = id;
  space->tenant = tenant;
  space->fingerprint = fingerprint;
  space->spec = spec;
  space->shape = {.block_bytes = layout.block_bytes, .section_bytes = layout.layer_bytes};
  spaces_[id] = std::move(space);
  space_ids_[tenant][fingerprint] = id;
  return id;
}

bool ShardEngineImpl::DropUnusedSpace(const Tenant& tenant) {
  for (const auto& [fingerprint, id] : space_ids_[tenant]) {
    const KeySpace& space = SpaceOf(id);
    if (space.open_handles + space.blocks + space.reserved + space.held_back > 0) continue;
    const KeySpaceId unused = id;
    for (const ClaimId claim : claims_.Of(unused)) EndClaim(claim);
    space_ids_[tenant].erase(Fingerprint(fingerprint));
    spaces_.erase(unused);
    return true;
  }
  return false;
}

absl::StatusOr<ShardEngineImpl::Holdings*> ShardEngineImpl::HoldingsOf(AttachmentId attachment) {
  const auto it = holdings_.find(attachment);
  if (it == holdings_.end()) return UnknownAttachment(attachment);
  return &it->second;
}

void ShardEngineImpl::OnCommitted(std::function<void(CommittedChain)> listener) {
  std::shared_ptr<const std::function<void(CommittedChain)>> shared;
  if (listener) {
    shared = std::make_shared<const std::function<void(CommittedChain)>>(std::move(listener));
  }
  absl::MutexLock lock(&mu_);
  listener_ = std::move(shared);
}

EngineDescription ShardEngineImpl::Describe(const std::optional<Tenant>& tenant) const {
  EngineDescription description;
  absl::MutexLock lock(&mu_);
  for (Level level = 0; level < pool_->levels(); ++level) {
    description.tiers.push_back({.tier = pool_->tier(level),
                                 .capacity_bytes = pool_->capacity_bytes(level),
                                 .used_bytes = pool_->used_bytes(level),
                                 .lost = pool_->lost(level)});
  }
  if (kept_ != nullptr) {
    description.kept_disk = kept_use_;
    description.kept_disk->waiting_blocks = waiting_.size();
    description.kept_disk->to_scrub_blocks = to_scrub_.size();
  }
  description.tenants = TenantUses();
  for (const auto& [id, space] : spaces_) {
    description.blocks += space->blocks;
    for (Level level = 0; level < pool_->levels(); ++level) {
      description.tiers[level].blocks += order_.tracked(GroupOf(id, level));
    }
    if (tenant.has_value() && space->tenant != *tenant) continue;
    description.specs.push_back({.tenant = space->tenant,
                                 .fingerprint = space->fingerprint,
                                 .spec = space->spec,
                                 .block_bytes = space->shape.block_bytes,
                                 .blocks = space->blocks});
  }
  description.leases = leases_.size();
  description.reservations = reservations_.size();
  description.attachments = holdings_.size();
  description.watchers = watchers_.size();
  description.counters = counters_.Snapshot();
  description.sizing = EstimateSizing();
  description.claims = DescribeClaims();
  return description;
}

void ShardEngineImpl::Tick() {
  const absl::Time now = clock_.Now();
  const absl::Duration silence = limits::kKeepAliveInterval * limits::kKeepAlivesMissedMax;
  for (AttachmentId silent : attachments_.SilentSince(now - silence)) {
    counters_.Add(Counter::kExpiredAttachments);
    Detach(silent);
  }
  Locked lock(this);
  Settle(now);
}

void ShardEngineImpl::Settle(absl::Time now) {
  WithdrawLostTiers();
  EndOverdueClaims(now);
  while (!due_.empty() && due_.top().at <= now) {
    Due due = due_.top();
    due_.pop();
    if (due.reservation) {
      const auto reservation = reservations_.find(due.reservation);
      if (reservation == reservations_.end()) continue;
      due.at = ReservationEnd(reservation->second);
      if (due.at > now) {
        due_.push(due);
        continue;
      }
      counters_.Add(Counter::kExpiredReservations);
      EndReservation(due.reservation);
      continue;
    }
    const auto lease = leases_.find(due.lease);
    if (lease == leases_.end()) continue;
    due.at = LeaseEnd(lease->second);
    if (due.at > now) {
      due_.push(due);
      continue;
    }
    counters_.Add(Counter::kExpiredLeases);
    EndLease(due.lease);
  }
}

}  // namespace reprise::shard
