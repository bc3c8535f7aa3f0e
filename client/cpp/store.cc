// Stores the blocks of a chain at its home shard, or at the next one when home is in trouble.
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/call_policy.h"
#include "client/cpp/client_core.h"
#include "client/cpp/device_memory.h"
#include "client/cpp/device_source.h"
#include "client/cpp/fetch_plan.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

constexpr char kParentsMissing[] = "PARENTS_MISSING";

absl::Status ParentsMissing(const std::string& address, uint32_t found, uint32_t first) {
  return Refusal(
      absl::StatusCode::kFailedPrecondition, kParentsMissing,
      absl::StrCat("shard ", address, " has ", found, " of the ", first,
                   " blocks before the first one to store: store the chain from its start"));
}

// One store call at one shard.
class Writer {
 public:
  Writer(ClientCore& core, const StoreCall& call, const CallContext& context, OpenShard shard)
      : core_(core),
        call_(call),
        context_(context),
        layout_(call.spec->stored),
        on_device_(call.memory.device != kernels::kHostMemory),
        shard_(std::move(shard)) {}

  // OK when every block is stored, here, by this writer or another one. `result` is filled in every
  // case.
  absl::Status Write(StoreResult& result) {
    if (shard_.link->draining()) {
      return Refusal(absl::StatusCode::kUnavailable, "SHARD_DRAINING",
                     absl::StrCat("shard ", shard_.address, " is about to stop"));
    }
    REPRISE_RETURN_IF_ERROR(CheckParents());
    REPRISE_RETURN_IF_ERROR(AwaitCaller());
    REPRISE_RETURN_IF_ERROR(Reserve(result));
    REPRISE_RETURN_IF_ERROR(StoreGranted(result));
    return refused_;
  }

 private:
  // A batch that was sent.
  struct Written {
    absl::Status status;
    absl::Duration budget;    // that it had
    bool progressed = false;  // some connection took more than its first block
  };

  // A batch whose bytes are at the shard.
  struct Committing {
    std::span<const uint32_t> blocks;
    std::vector<Checksum128> checksums;
    absl::Time started;
    std::unique_ptr<cluster::PendingCommit> pending;
  };

  template <typename Answer>
  absl::StatusOr<Answer> Reported(absl::StatusOr<Answer> answer, absl::Time started) {
    ReportCall(core_, shard_, answer.status(), started, context_.deadline);
    return answer;
  }

  // A store that continues a chain is of no use where the chain is not.
  absl::Status CheckParents() {
    if (call_.first == 0) return absl::OkStatus();
    const absl::Time started = absl::Now();
    REPRISE_ASSIGN_OR_RETURN(
        const uint32_t found,
        Reported(shard_.link->Lookup(shard_.spec.handle, std::span(call_.keys).first(call_.first),
                                     context_.deadline),
                 started));
    return found == call_.first ? absl::OkStatus()
                                : ParentsMissing(shard_.address, found, call_.first);
  }

  // Before slots are reserved and a lane's time runs.
  absl::Status AwaitCaller() {
    if (!on_device_) return absl::OkStatus();
    REPRISE_ASSIGN_OR_RETURN(const auto scope, kernels::DeviceScope::Create(call_.memory.device));
    return AwaitStream(call_.memory, context_.deadline);
  }

  absl::Status Reserve(StoreResult& result) {
    const absl::Time started = absl::Now();
    REPRISE_ASSIGN_OR_RETURN(cluster::ReservedRun reserved,
                             Reported(shard_.link->Reserve({.spec = shard_.spec.handle,
                                                            .keys = call_.keys,
                                                            .session_id = call_.session,
                                                            .token_positions = {},
                                                            .token_ids = call_.tokens,
                                                            .replica = false},
                                                           context_.deadline),
                                      started));
    if (reserved.outcomes.size() != call_.keys.size()) {
      return absl::InternalError(absl::StrCat("shard ", shard_.address, " answered ",
                                              reserved.outcomes.size(), " outcomes for ",
                                              call_.keys.size(), " keys"));
    }
    reservation_ = reserved.reservation;
    for (uint32_t i = 0; i < call_.first; ++i) {
      if (reserved.outcomes[i] == ReserveOutcome::kGranted ||
          reserved.outcomes[i] == ReserveOutcome::kNoSpace) {
        return ParentsMissing(shard_.address, i, call_.first);
      }
    }
    for (uint32_t i = call_.first; i < call_.keys.size(); ++i) {
      switch (reserved.outcomes[i]) {
        case ReserveOutcome::kPresent:
          ++result.present;
          break;
        case ReserveOutcome::kPending:
          ++result.present;
          others_write_ = true;
          break;
        case ReserveOutcome::kGranted:
          granted_.push_back(i);
          break;
        case ReserveOutcome::kNoSpace:
          refused_ = Refusal(absl::StatusCode::kResourceExhausted, "SHARD_FULL",
                             absl::StrCat("shard ", shard_.address, " has no space for block ", i,
                                          " and those after it"));
          break;
      }
    }
    return absl::OkStatus();
  }

  // Device memory is moved faster than many small calls are answered, and so are several
  // connections.
  uint32_t BatchBlocks() const {
    const lanes::Lane& lane = shard_.link->lane();
    const bool may_be_device = on_device_ && !IsHostNetwork(lane.kind());
    const uint64_t bytes =
        may_be_device ? limits::kDeviceStoreBatchBytes
                      : std::max(limits::kStoreBatchBytes, limits::kFlowBytesMin * lane.flows());
    return static_cast<uint32_t>(std::max<uint64_t>(1, bytes / layout_.block_bytes));
  }

  // In batches, so that early blocks show. While one is being committed the next one is written.
  absl::Status StoreGranted(StoreResult& result) {
    const uint32_t batch = BatchBlocks();
    std::optional<Committing> before;
    for (size_t at = 0; at < granted_.size(); at += batch) {
      REPRISE_RETURN_IF_ERROR(StillWanted(before, result));
      Committing now{.blocks = std::span<const uint32_t>(granted_).subspan(
                         at, std::min<size_t>(batch, granted_.size() - at))};
      const Written written = WriteBatch(now.blocks, now.checksums);
      // One at a time: a block is committed after its parent. A shard that does not take bytes may
      // not answer either.
      const absl::Time patience =
          written.status.ok()
              ? context_.deadline
              : std::min(context_.deadline, absl::Now() + limits::kTransferStallMax);
      const absl::Status committed = Committed(before, patience, result);
      // After the news of the commit, which are older.
      Report(written);
      REPRISE_RETURN_IF_ERROR(written.status);
      result.bytes += now.blocks.size() * layout_.block_bytes;
      REPRISE_RETURN_IF_ERROR(committed);
      before = at + batch < granted_.size() ? StartCommit(std::move(now)) : Commit(std::move(now));
    }
    return Committed(before, context_.deadline, result);
  }

  // OK while the caller has time and wants it; else what is being committed is counted and no more.
  absl::Status StillWanted(std::optional<Committing>& before, StoreResult& result) {
    absl::Status over = context_.Check();
    if (!over.ok())
      Committed(before, absl::Now() + limits::kTransferStallMax, result).IgnoreError();
    return over;
  }

  Written WriteBatch(std::span<const uint32_t> blocks, std::vector<Checksum128>& checksums) {
    const absl::Time started = absl::Now();
    const absl::Time deadline =
        std::min(context_.deadline, started + StallLimit(blocks.size() * layout_.block_bytes));
    Written written{.budget = deadline - started};
    written.status = WriteFlows(blocks, deadline, checksums, written.progressed);
    return written;
  }

  void Report(const Written& written) {
    // Late, but sending: nothing is wrong with the shard. Nor is when the caller's GPU fails.
    const bool sending = absl::IsDeadlineExceeded(written.status) && written.progressed;
    const bool blameless = sending || kernels::IsGpuFailure(written.status) ||
                           RefusalReason(written.status) == "CALLER_STREAM_BUSY";
    core_.shards.Report(shard_.address, shard_.link,
                        blameless ? absl::CancelledError("") : written.status, written.budget);
  }

  // Over as many connections as the lane has for so much. OK: `checksums` has those of all blocks.
  // `progressed`: some connection took more than its first block.
  absl::Status WriteFlows(std::span<const uint32_t> blocks, absl::Time deadline,
                          std::vector<Checksum128>& checksums, bool& progressed) {
    const auto count = static_cast<uint32_t>(blocks.size());
    const uint32_t parts = FlowParts(count, layout_.block_bytes, shard_.link->lane().flows());
    std::vector<absl::Status> statuses(parts);
    std::vector<std::vector<Checksum128>> made(parts);
    std::vector<std::function<void()>> tasks;
    for (uint32_t part = 0; part < parts; ++part) {
      const uint32_t begin = PartBegin(count, part, parts);
      tasks.push_back(
          [&, part, own = blocks.subspan(begin, PartBegin(count, part + 1, parts) - begin)] {
            statuses[part] = WriteFlow(own, deadline, made[part]);
          });
    }
    core_.executor.RunAll(std::move(tasks));
    for (const std::vector<Checksum128>& some : made) {
      checksums.insert(checksums.end(), some.begin(), some.end());
      progressed = progressed || some.size() > 1;
    }
    // A GPU that failed is not to be taken for a shard that did.
    const auto worst = std::find_if(statuses.begin(), statuses.end(), kernels::IsGpuFailure);
    if (worst != statuses.end()) return *worst;
    for (const absl::Status& status : statuses) REPRISE_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  absl::Status WriteFlow(std::span<const uint32_t> blocks, absl::Time deadline,
                         std::vector<Checksum128>& checksums) {
    std::vector<uint32_t> own;  // indexes into the caller's memory
    for (uint32_t block : blocks) own.push_back(block - call_.first);
    return WriteFrom(own,
                     {.reservation = reservation_,
                      .blocks = {blocks.begin(), blocks.end()},
                      .block_bytes = layout_.block_bytes},
                     deadline, checksums);
  }

  // Sets `checksums` to those of the blocks that the lane took; `own` is their place in the
  // caller's memory.
  absl::Status WriteFrom(std::span<const uint32_t> own, const lanes::WriteJob& job,
                         absl::Time deadline, std::vector<Checksum128>& checksums) {
    const BlockTransfer transfer{.memory = &call_.memory,
                                 .layout = &layout_,
                                 .codec = call_.spec->codec_or_null(),
                                 .staging = &core_.staging,
                                 .first = 0,
                                 .deadline = deadline};
    const auto check = [this] { return context_.Check(); };
    if (!on_device_) {
      ChecksummingSource source(transfer, own, check);
      const absl::Status status = shard_.link->lane().Write(job, source, deadline);
      checksums.assign(source.checksums().begin(), source.checksums().end());
      return status;
    }
    DeviceSource source(transfer, core_.device_workspaces, own, check);
    REPRISE_RETURN_IF_ERROR(source.Prepare());
    const absl::Status status = shard_.link->lane().Write(job, source, deadline);
    const absl::Status finished = source.Finish();
    checksums.assign(source.checksums().begin(), source.checksums().end());
    return finished.ok() ? status : finished;
  }

  Committing StartCommit(Committing batch) {
    batch.started = absl::Now();
    batch.pending =
        shard_.link->StartCommit(reservation_, batch.blocks, batch.checksums, context_.deadline);
    return batch;
  }

  // Of a batch that nothing follows: waits here, since a call that is waited for is the faster one.
  Committing Commit(Committing batch) {
    batch.started = absl::Now();
    batch.pending = std::make_unique<cluster::AnsweredCommit>(
        shard_.link->Commit(reservation_, batch.blocks, batch.checksums, context_.deadline));
    return batch;
  }

  // Counts what was committed of a batch, if there is one. Waits a little for parents that another
  // writer is about to commit.
  absl::Status Committed(std::optional<Committing>& under_way, absl::Time patience,
                         StoreResult& result) {
    if (!under_way.has_value()) return absl::OkStatus();
    Committing& batch = *under_way;
    const absl::Time give_up = std::min(context_.deadline, absl::Now() + limits::kCommitRetryMax);
    for (int attempt = 1;; ++attempt) {
      const absl::StatusOr<cluster::CommittedRun> committed = batch.pending->Await(patience);
      // That nobody waited for the answer says nothing of the shard.
      const bool impatient =
          absl::IsDeadlineExceeded(committed.status()) && absl::Now() < context_.deadline;
      if (!impatient) {
        ReportCall(core_, shard_, committed.status(), batch.started, context_.deadline);
      }
      if (committed.ok()) {
        result.stored += committed->committed;
        result.present += committed->duplicate;
        return absl::OkStatus();
      }
      const absl::Duration wait =
          BackOff(attempt, static_cast<uint64_t>(absl::ToUnixNanos(batch.started)));
      if (!others_write_ || !absl::IsFailedPrecondition(committed.status()) ||
          absl::Now() + wait >= give_up || !context_.Check().ok()) {
        return committed.status();
      }
      absl::SleepFor(wait);
      batch = StartCommit(std::move(batch));
    }
  }

  ClientCore& core_;
  const StoreCall& call_;
  const CallContext& context_;
  const BlockLayout& layout_;  // of a block at the shard
  const bool on_device_;
  const OpenShard shard_;
  ReservationId reservation_;
  std::vector<uint32_t> granted_;
  bool others_write_ = false;
  absl::Status refused_;
};

// Another shard may do better.
bool TryNext(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kNotFound:  // the attachment or the reservation is over: the shard
                                       // restarted
      return true;
    case absl::StatusCode::kFailedPrecondition:
      return RefusalReason(status) == kParentsMissing;
    default:
      return false;
  }
}

// The shards to try, in the placement order.
absl::StatusOr<std::vector<std::string>> Targets(ClientCore& core, const StoreCall& call,
                                                 const CallContext& context) {
  const RouteCall route_call = RouteCallOf(core, *call.spec, call.session, call.keys);
  REPRISE_ASSIGN_OR_RETURN(
      const Route route,
      core.routes.Order(route_call, TryDeadline(absl::Now(), context.deadline, 3)));
  std::vector<std::string> targets;
  for (const ShardTarget& target : route.order) {
    if (targets.size() < limits::kStoreTargetsMax) targets.push_back(target.address);
  }
  return targets;
}

// The blocks before the first one to store are not at this shard, whose session it is: it brings
// them from where they are, so that the conversation is in one place.
bool PullParents(ClientCore& core, const StoreCall& call, const CallContext& context,
                 const OpenShard& shard) {
  const size_t tokens = call.tokens.empty() ? 0 : size_t{call.first} * call.spec->spec.block_tokens;
  const absl::StatusOr<cluster::PulledRun> pulled =
      shard.link->Pull({.spec = shard.spec.handle,
                        .keys = std::span(call.keys).first(call.first),
                        .session_id = call.session,
                        .token_ids = std::span(call.tokens).first(tokens),
                        .from = {}},
                       TryDeadline(absl::Now(), context.deadline, 2));
  core.counters.pulls += 1;
  return pulled.ok() && pulled->run_blocks == call.first;
}

// At one shard; once more when it had to bring the blocks before first.
absl::Status StoreAt(ClientCore& core, const std::string& address, const StoreCall& call,
                     const CallContext& context, StoreResult& result) {
  REPRISE_ASSIGN_OR_RETURN(const OpenShard shard,
                           OpenAt(core, address, call.spec->spec, context.deadline));
  const absl::Status status = Writer(core, call, context, shard).Write(result);
  if (RefusalReason(status) != kParentsMissing || !PullParents(core, call, context, shard)) {
    return status;
  }
  result = StoreResult();
  return Writer(core, call, context, shard).Write(result);
}

}  // namespace

absl::Status CheckStore(const StoreCall& call) {
  REPRISE_RETURN_IF_ERROR(CheckAcquire({.spec = call.spec,
                                        .keys = call.keys,
                                        .session = call.session,
                                        .first_block = 0,
                                        .timeout = absl::ZeroDuration()}));
  if (call.first > call.keys.size()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "STORE_FIRST",
                   absl::StrCat("first ", call.first, " lies beyond the ", call.keys.size(),
                                " keys: give the whole chain of keys from its first block"));
  }
  const uint64_t tokens = call.keys.size() * uint64_t{call.spec->spec.block_tokens};
  if (!call.tokens.empty() && call.tokens.size() != tokens) {
    return Refusal(absl::StatusCode::kInvalidArgument, "STORE_TOKENS",
                   absl::StrCat("tokens has ", call.tokens.size(), " entries, the keys stand for ",
                                tokens, ": give block_tokens for each key, or none"));
  }
  return call.memory.Check(call.spec->layout, static_cast<uint32_t>(call.keys.size() - call.first),
                           call.spec->codec_or_null());
}

StoreResult StoreChain(const CorePtr& core, const StoreCall& call, const CallContext& context) {
  StoreResult result;
  const uint32_t wanted = static_cast<uint32_t>(call.keys.size()) - call.first;
  if (wanted > 0) {
    absl::StatusOr<std::vector<std::string>> targets = Targets(*core, call, context);
    result.status = targets.status();
    const size_t count = targets.ok() ? targets->size() : 0;
    for (size_t i = 0; i < count; ++i) {
      if (absl::Status over = context.Check(); !over.ok()) {
        if (result.status.ok()) result.status = over;
        break;
      }
      const CallContext share{
          TryDeadline(absl::Now(), context.deadline, static_cast<int>(count - i)),
          context.cancelled};
      StoreResult at_shard;
      const absl::Status status = StoreAt(*core, (*targets)[i], call, share, at_shard);
      // What an earlier shard took stays there, but a chain counts where all of it is.
      result.stored = at_shard.stored;
      result.present = at_shard.present;
      result.bytes += at_shard.bytes;
      result.status = status;
      if (status.ok() || kernels::IsGpuFailure(status) || !TryNext(status)) break;
      core->routes.Forget(RouteCallOf(*core, *call.spec, call.session, call.keys));
    }
  }
  result.refused = wanted - std::min(wanted, result.stored + result.present);
  Counters& counters = core->counters;
  counters.stores += 1;
  counters.blocks_stored += result.stored;
  counters.blocks_present += result.present;
  counters.blocks_refused += result.refused;
  counters.bytes_stored += result.bytes;
  if (!result.status.ok()) counters.calls_failed += 1;
  if (absl::IsDeadlineExceeded(result.status)) counters.calls_late += 1;
  return result;
}

}  // namespace reprise::client
