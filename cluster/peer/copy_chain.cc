#include "cluster/peer/copy_chain.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

// The blocks of a source chain as a lane takes them. A chain that lies in device memory as a whole
// is sent from there by lanes that can; others take its bytes through host memory.
class ChainBlocks final : public lanes::BlockSource {
 public:
  ChainBlocks(SourceChain& chain, uint32_t first, uint32_t end) : chain_(chain), first_(first) {
    for (uint32_t block = first; block < end; ++block) {
      std::optional<lanes::PinnedBytes> slot = chain.InDevice(block);
      if (!slot.has_value()) {
        slots_.clear();
        return;
      }
      slots_.push_back(*std::move(slot));
    }
  }
  lanes::MemoryKind memory() const override {
    return slots_.empty() ? lanes::MemoryKind::kHost : lanes::MemoryKind::kDevice;
  }
  std::vector<lanes::PinnedBytes> Pinned(uint32_t first, uint32_t blocks) override {
    if (first >= slots_.size()) return {};
    const auto from = slots_.begin() + first;
    return {from, from + std::min<std::ptrdiff_t>(blocks, slots_.end() - from)};
  }
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    return chain_.Bytes(first_ + i);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    REPRISE_ASSIGN_OR_RETURN(const std::span<const uint8_t> bytes, chain_.Bytes(first_ + i));
    REPRISE_CHECK(bytes.size() == slot.size());
    std::memcpy(slot.data(), bytes.data(), bytes.size());
    return absl::OkStatus();
  }

 private:
  SourceChain& chain_;
  const uint32_t first_;
  std::vector<lanes::PinnedBytes> slots_;  // all of the chain's or none
};

struct Granted {
  uint32_t first = 0;
  uint32_t end = 0;       // [first, end) are ours to write
  uint32_t pending = 0;   // being written by others
  bool no_space = false;  // the peer had room for less than was missing
};

// Grants are one run after what is present.
Granted GrantedIn(std::span<const ReserveOutcome> outcomes) {
  const auto is = [](ReserveOutcome wanted) {
    return [wanted](ReserveOutcome outcome) { return outcome == wanted; };
  };
  const auto first = std::find_if(outcomes.begin(), outcomes.end(), is(ReserveOutcome::kGranted));
  const auto end = std::find_if_not(first, outcomes.end(), is(ReserveOutcome::kGranted));
  return {.first = static_cast<uint32_t>(first - outcomes.begin()),
          .end = static_cast<uint32_t>(end - outcomes.begin()),
          .pending = static_cast<uint32_t>(
              std::count(outcomes.begin(), outcomes.end(), ReserveOutcome::kPending)),
          .no_space = std::any_of(outcomes.begin(), outcomes.end(), is(ReserveOutcome::kNoSpace))};
}

// One chain on its way to one peer.
class Copy {
 public:
  Copy(ShardLink& peer, ReplicationSource& source, const ReplicationJob& job,
       const CopyOptions& options)
      : peer_(peer), source_(source), job_(job), options_(options) {}

  absl::Status Run(CopiedChain& copied) {
    REPRISE_ASSIGN_OR_RETURN(spec_, peer_.OpenSpec(job_.spec, Deadline()));
    REPRISE_ASSIGN_OR_RETURN(const ReservedRun reserved,
                             peer_.Reserve({.spec = spec_.handle,
                                            .keys = job_.keys,
                                            .session_id = job_.session_id,
                                            .token_ids = job_.token_ids,
                                            .replica = true,
                                            .spare_room = options_.spare_room},
                                           Deadline()));
    const Granted granted = GrantedIn(reserved.outcomes);
    copied.pending = granted.pending;
    if (granted.first < granted.end) {
      REPRISE_RETURN_IF_ERROR(CopyGranted(reserved.reservation, granted, copied));
    }
    PlaceClaims();
    if (!granted.no_space) return absl::OkStatus();
    return Refusal(absl::StatusCode::kResourceExhausted, "PEER_FULL",
                   absl::StrCat("the peer had room for ", copied.blocks,
                                " of the blocks that it lacks: its copy is shorter"));
  }

 private:
  // A claim that the peer does not take leaves the copy as cold there as any other. One that was
  // placed there under the same name is newer, or the same.
  void PlaceClaims() {
    for (const ChainClaim& claim : job_.claims) {
      if (options_.stopped && options_.stopped()) return;
      const size_t blocks = std::min<size_t>(claim.blocks, job_.keys.size());
      reprise::Hint hint = claim.hint;
      hint.unless_claimed = true;
      peer_
          .Hint({.spec = spec_.handle,
                 .keys = std::span(job_.keys).first(blocks),
                 .hint = std::move(hint)},
                Deadline())
          .IgnoreError();
    }
  }

  absl::Status CopyGranted(ReservationId reservation, const Granted& granted, CopiedChain& copied) {
    REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<SourceChain> chain,
                             source_.Open(job_, granted.first));
    const uint32_t end = std::min(granted.end, chain->run_blocks());
    if (end <= granted.first) {
      return Refusal(absl::StatusCode::kNotFound, kChainGone, "the chain was evicted meanwhile");
    }
    const auto batch = static_cast<uint32_t>(
        std::max<uint64_t>(1, limits::kDeviceStoreBatchBytes / spec_.block_bytes));
    for (uint32_t first = granted.first; first < end; first += batch) {
      if (options_.stopped && options_.stopped()) {
        return absl::CancelledError("the copy was stopped before its end");
      }
      const uint32_t blocks = std::min(batch, end - first);
      REPRISE_RETURN_IF_ERROR(CopyBatch(reservation, *chain, first, blocks));
      copied.blocks += blocks;
      copied.bytes += blocks * spec_.block_bytes;
    }
    return absl::OkStatus();
  }

  absl::Status CopyBatch(ReservationId reservation, SourceChain& chain, uint32_t first,
                         uint32_t count) {
    const absl::Time deadline = Deadline();
    std::vector<uint32_t> blocks(count);
    std::iota(blocks.begin(), blocks.end(), first);
    ChainBlocks bytes(chain, first, first + count);
    REPRISE_RETURN_IF_ERROR(peer_.lane().Write(
        {.reservation = reservation, .blocks = blocks, .block_bytes = spec_.block_bytes}, bytes,
        deadline));
    std::vector<Checksum128> checksums;
    for (uint32_t block : blocks) checksums.push_back(chain.checksum(block));
    return peer_.Commit(reservation, blocks, checksums, deadline).status();
  }

  absl::Time Deadline() const {
    return std::min(options_.deadline, absl::Now() + options_.batch_time);
  }

  ShardLink& peer_;
  ReplicationSource& source_;
  const ReplicationJob& job_;
  const CopyOptions& options_;
  OpenedSpec spec_;
};

}  // namespace

CopyOutcome CopyChain(ShardLink& peer, ReplicationSource& source, const ReplicationJob& job,
                      const CopyOptions& options) {
  CopyOutcome outcome;
  outcome.status = Copy(peer, source, job, options).Run(outcome.copied);
  return outcome;
}

}  // namespace reprise::cluster
