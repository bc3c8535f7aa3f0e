#include "service/shard/engine_source.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

struct PinnedRun {
  uint32_t first = 0;
  std::vector<Checksum128> checksums;
  std::vector<lanes::PinnedBytes> blocks;
};

class PinnedChain final : public cluster::SourceChain {
 public:
  PinnedChain(ShardEngine& engine, PinnedRun run) : engine_(engine), run_(std::move(run)) {}

  uint32_t run_blocks() const override {
    return run_.first + static_cast<uint32_t>(run_.blocks.size());
  }
  const Checksum128& checksum(uint32_t index) const override {
    return run_.checksums.at(index - run_.first);
  }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t index) override {
    const lanes::PinnedBytes& block = run_.blocks.at(index - run_.first);
    if (block.memory == lanes::MemoryKind::kHost) return block.bytes;
    staged_.resize(block.bytes.size());
    REPRISE_RETURN_IF_ERROR(engine_.CopyToHost(block.bytes, staged_));
    return std::span<const uint8_t>(staged_);
  }

  std::optional<lanes::PinnedBytes> InDevice(uint32_t index) override {
    const lanes::PinnedBytes& block = run_.blocks.at(index - run_.first);
    if (block.memory != lanes::MemoryKind::kDevice) return std::nullopt;
    return block;
  }

 private:
  ShardEngine& engine_;
  const PinnedRun run_;
  std::vector<uint8_t> staged_;  // one block out of device memory
};

absl::StatusOr<PinnedRun> Pin(ShardEngine& engine, AttachmentId attachment,
                              const cluster::ReplicationJob& job, uint32_t first) {
  REPRISE_ASSIGN_OR_RETURN(const OpenSpecResult spec,
                           engine.OpenSpec(attachment, job.spec, std::nullopt));
  REPRISE_ASSIGN_OR_RETURN(
      const AcquireResult acquired,
      engine.Acquire(attachment, {.spec = spec.handle, .keys = job.keys, .first_block = first}));
  if (!acquired.lease) {
    return Refusal(absl::StatusCode::kNotFound, "CHAIN_GONE",
                   absl::StrCat("of ", job.keys.size(), " blocks ", acquired.run_blocks,
                                " are stored and none from block ", first, " on: nothing to copy"));
  }
  PinnedRun run{.first = first, .checksums = acquired.checksums};
  REPRISE_ASSIGN_OR_RETURN(run.blocks, engine.OpenRead(attachment, acquired.lease, first, 0));
  return run;
}

}  // namespace

absl::StatusOr<std::unique_ptr<cluster::SourceChain>> EngineSource::Open(
    const cluster::ReplicationJob& job, uint32_t first) {
  REPRISE_ASSIGN_OR_RETURN(const AttachmentId attachment, engine_.Attach(job.tenant, "replicator"));
  absl::StatusOr<PinnedRun> run = Pin(engine_, attachment, job, first);
  // The pins hold the blocks from here on: a copy may take longer than an attachment may be silent.
  engine_.Detach(attachment);
  if (!run.ok()) return run.status();
  return std::make_unique<PinnedChain>(engine_, *std::move(run));
}

namespace {

class EngineChains final : public cluster::StoredChains {
 public:
  explicit EngineChains(const ShardEngine& engine) : engine_(engine), ends_(engine.Chains()) {}
  size_t size() const override { return ends_.size(); }
  const Tenant& tenant(size_t i) const override { return ends_[i].tenant; }
  const Fingerprint& fingerprint(size_t i) const override { return ends_[i].fingerprint; }
  const BlockKey& first(size_t i) const override { return ends_[i].first; }
  const BlockKey& last(size_t i) const override { return ends_[i].last; }
  std::optional<cluster::ReplicationJob> Job(size_t i) const override {
    std::optional<CommittedChain> chain = engine_.ChainTo(ends_[i]);
    if (!chain.has_value()) return std::nullopt;
    return ToReplicationJob(*std::move(chain));
  }

 private:
  const ShardEngine& engine_;
  const std::vector<ChainEnd> ends_;
};

}  // namespace

std::unique_ptr<cluster::StoredChains> EngineSource::Chains() {
  return std::make_unique<EngineChains>(engine_);
}

cluster::ReplicationJob ToReplicationJob(CommittedChain chain) {
  return {.tenant = std::move(chain.tenant),
          .spec = std::move(chain.spec),
          .session_id = std::move(chain.session_id),
          .keys = std::move(chain.keys),
          .token_ids = std::move(chain.token_ids),
          .first_new = chain.first_new,
          .claims = std::move(chain.claims)};
}

}  // namespace reprise::shard
