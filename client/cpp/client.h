// The client that runs inside an inference worker: finds the longest stored prefix of a prompt,
// reads its blocks into the worker's memory, stores the blocks that the worker computed, and tells
// the store what is wanted later and what is not.
//
// A cache must never be in the way: every call returns by its deadline with as much as there was, a
// shard in trouble is a miss at once (breaker), and what went wrong is told beside the result and
// never instead of it. Only misuse (INVALID_ARGUMENT) is an error of its own.
//
// Invariants: a block counts only when its checksum held where it is used; after a call returned,
// or an operation is done, no memory of the caller's is touched. Thread safety: all methods may be
// called from any thread. Runs may outlive the client's last call, not the client.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/caller_memory.h"
#include "client/cpp/counters.h"
#include "client/cpp/operation.h"
#include "client/cpp/router_client.h"
#include "client/cpp/run.h"
#include "client/cpp/shard_queries.h"
#include "client/cpp/shard_set.h"
#include "proto/types/hints.h"
#include "proto/types/limits.h"
#include "proto/types/tls_options.h"

namespace reprise::client {

struct ClientOptions {
  std::vector<std::string> routers;  // host:port; any of them
  std::vector<std::string>
      shards;  // host:port; instead of routers: these are all the shards there are
  std::string name = "unnamed";                      // for people
  absl::Duration timeout = limits::kClientDeadline;  // of calls that name none
  size_t threads = limits::kClientThreads;           // of the non-blocking forms
  std::vector<LaneKind> lanes = {LaneKind::kView, LaneKind::kNccl, LaneKind::kTcp,
                                 LaneKind::kStream};
  // The GPU whose memory blocks move from and to by NCCL; nullopt: no NCCL lane.
  std::optional<int> gpu;
  std::string nccl_library;  // path of libnccl.so.2; empty: what the loader finds
  TlsOptions tls;            // none(): plaintext
};

// What a test puts in place of the network.
struct ClientSeams {
  ShardLinkFactory connect;
  std::unique_ptr<RouterClient> router;   // nullptr: ClientOptions::shards are all there are
  std::unique_ptr<ShardQueries> queries;  // REQUIRES: not null
  const Clock* clock = nullptr;           // of breakers and caches; nullptr: the monotonic clock
};

struct AcquireCall {
  std::shared_ptr<const ClientSpec> spec;
  std::vector<BlockKey> keys;  // the whole chain, from its first block
  std::string session;         // empty: the first key stands for it
  uint32_t first_block = 0;    // blocks before it are counted but not leased
  absl::Duration timeout;      // <= 0: the client's
};
struct AcquireResult {
  std::shared_ptr<Run> run;  // never null in an answer; 0 blocks: a miss
  absl::Status status;       // not OK: the run may be shorter than what is stored, and why
};

struct FetchCall {
  uint32_t first = 0;  // block of the run; the memory's block 0
  uint32_t count = 0;
  CallerMemory memory;
  absl::Duration timeout;  // <= 0: the client's
};
struct FetchResult {
  uint32_t blocks = 0;   // in the caller's memory, verified, consecutive from `first` on
  uint32_t corrupt = 0;  // whose checksum failed
  uint64_t bytes = 0;
  std::array<uint32_t, kLaneKinds> by_lane{};
  std::array<uint32_t, kTiers> by_tier{};
  uint32_t shards = 0;  // that served
  absl::Status status;  // not OK when there are fewer blocks than asked for
};

struct StoreCall {
  std::shared_ptr<const ClientSpec> spec;
  std::vector<BlockKey> keys;    // the whole chain, from its first block
  uint32_t first = 0;            // stores [first, keys.size()); the memory's block 0
  std::vector<uint32_t> tokens;  // of all keys, for Explain; empty: unknown
  std::string session;
  CallerMemory memory;
  absl::Duration timeout;  // <= 0: the client's
};
struct StoreResult {
  uint32_t stored = 0;   // newly
  uint32_t present = 0;  // before, or by another writer meanwhile
  uint32_t refused = 0;  // not stored
  uint64_t bytes = 0;    // sent
  absl::Status status;   // not OK when some were refused, and why
};

struct HintCall {
  std::shared_ptr<const ClientSpec> spec;
  std::vector<BlockKey> keys;  // the whole chain, from its first block; empty only for kRelease
  std::string session;         // empty: the first key stands for it
  reprise::Hint hint;
  absl::Duration timeout;  // <= 0: the client's
};
struct HintAnswer {
  HintResult result;    // of the shard that did the most; says nothing when none answered
  uint32_t shards = 0;  // that answered, a refusal not counted
  absl::Status status;  // not OK: no shard, or not all that should have, answered, and why
};

struct ExplainCall {
  Fingerprint fingerprint;
  std::vector<BlockKey> keys;
  std::vector<uint32_t> tokens;  // of the keys; empty: unknown
  absl::Duration timeout;        // <= 0: the client's
};
struct ShardExplanation {
  ShardTarget shard;
  absl::Status status;  // not OK: this shard did not answer
  Explanation explanation;
};

struct ClientCore;

class Client {
 public:
  // Opens no connection. INVALID_ARGUMENT naming the option or the certificate file that is missing
  // or wrong.
  static absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options);
  static absl::StatusOr<std::unique_ptr<Client>> CreateWith(ClientOptions options,
                                                            ClientSeams seams);
  // Ends what is queued, waits for what runs: until the latest deadline at most.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // INVALID_ARGUMENT naming the field. Asks nobody: shards learn of the spec with the first call
  // that uses it.
  absl::StatusOr<std::shared_ptr<const ClientSpec>> OpenSpec(const CacheSpec& spec) const;

  // ---- Blocking, on the caller's thread
  absl::StatusOr<AcquireResult> Acquire(const AcquireCall& call);
  absl::StatusOr<FetchResult> Fetch(const std::shared_ptr<Run>& run, const FetchCall& call);
  absl::StatusOr<StoreResult> Store(const StoreCall& call);
  // Asks shards to keep what they store of the chain, or to let it go: those that its placement
  // leads to, as many as there are copies, and those that hold a part of it; a kRelease without
  // keys asks all, since the claim may lie at any. Best effort: a shard in trouble costs its share
  // of the time.
  absl::StatusOr<HintAnswer> Hint(const HintCall& call);

  // ---- Non-blocking, on the client's threads. INVALID_ARGUMENT for misuse, RESOURCE_EXHAUSTED
  // when too many wait.
  absl::StatusOr<Operation<AcquireResult>> StartAcquire(AcquireCall call);
  absl::StatusOr<Operation<FetchResult>> StartFetch(std::shared_ptr<Run> run, FetchCall call);
  absl::StatusOr<Operation<StoreResult>> StartStore(StoreCall call);
  absl::StatusOr<Operation<HintAnswer>> StartHint(HintCall call);

  // Leases the run ahead of need: the next Acquire of the same keys takes it over. Blocks that lie
  // elsewhere are brought to the session's home first. Best effort.
  absl::Status Prefetch(AcquireCall call);

  // The caller's engine computed `tokens` of a prompt of this spec in one go, in `time`: what
  // routers weigh bringing blocks from another shard against. INVALID_ARGUMENT for no time at all.
  absl::Status NotePrefill(const ClientSpec& spec, uint64_t tokens, absl::Duration time);

  // Why a prompt hits as far as it does, by every shard.
  absl::StatusOr<std::vector<ShardExplanation>> Explain(const ExplainCall& call);

  const Counters& counters() const;
  std::vector<ShardView> Shards() const;
  uint64_t staging_bytes() const;
  // All of it as one JSON object.
  std::string StatsJson() const;

 private:
  explicit Client(std::shared_ptr<ClientCore> core);
  std::shared_ptr<ClientCore> core_;
};

}  // namespace reprise::client
