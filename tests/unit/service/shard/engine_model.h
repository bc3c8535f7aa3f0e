// An engine beside a model of what it must and must not hold, and what each step does to both.
// Asserts as rapidcheck does.
#pragma once

#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/service/shard/engine_fixture.h"
#include "tests/unit/service/shard/engine_step.h"

namespace reprise::shard {

inline constexpr uint32_t kSpecs = 2;
inline constexpr uint32_t kDepth = 5;
inline constexpr uint64_t kContentSeed = 3;

// A block's name: which spec, and the branches taken from the root to it.
using Path = std::string;

// The engine beside a model of what it must and must not hold.
class Pair {
 public:
  struct Memory {
    uint64_t hbm_bytes = 0, dram_bytes = 4 * kMiB, nvme_bytes = 0;
  };
  explicit Pair(Memory memory, uint64_t quota_bytes = TenantQuotas::kNone)
      : tiered_(memory.hbm_bytes + memory.nvme_bytes > 0), quota_bytes_(quota_bytes) {
    control_->guarded = true;
    engine_ = *ShardEngine::Create(
        {.id = {"shard-0"},
         .dram_bytes = memory.dram_bytes,
         .hbm_bytes = memory.hbm_bytes,
         .hbm_device = std::make_unique<reprise::testing::HostHbmDevice>(control_),
         .nvme_bytes = memory.nvme_bytes,
         .nvme_folder = std::filesystem::temp_directory_path().string(),
         .quotas = {.default_bytes = quota_bytes, .named = {}},
         .clock = &clock_,
         .background_eviction = false});
    watch_ = *engine_->Watch();
    for (Client& client : clients_) Attach(client);
  }

  void Take(const Step& step) {
    Client& client = clients_[step.a % 2];
    const uint32_t spec = (step.a >> 1) % kSpecs;
    const std::vector<Path> chain = Chain(spec, step.b);
    switch (static_cast<Verb>(step.verb)) {
      case Verb::kStore:
        Store(client, spec, chain);
        break;
      case Verb::kAcquire:
        Acquire(client, spec, chain, step.b >> 12);
        break;
      case Verb::kRelease:
        Release(client);
        break;
      case Verb::kRemove:
        Remove(client, spec, chain);
        break;
      case Verb::kAbandon:
        Abandon(client, spec, chain);
        break;
      case Verb::kDetach:
        if (step.b % 4 == 0) Detach(client);
        break;
      case Verb::kAdvance:
        Advance(absl::Milliseconds(step.b % 4000));
        break;
      case Verb::kEvict:
        Evict(/*device_refuses=*/step.b % 4 == 0);
        break;
      case Verb::kQuarantine:
        if (step.b % 8 == 0) Quarantine(spec, chain);
        break;
      case Verb::kShare:
        Share(client, spec, chain, step.b >> 12);
        break;
      case Verb::kLose:
        Lose(client, spec, chain);
        break;
      case Verb::kClaim:
        Claim(client, spec, chain, step.b >> 12);
        break;
      case Verb::kEvictHint:
        EvictHint(client, spec, chain, step.b >> 12);
        break;
      case Verb::kDemoteHint:
        RC_ASSERT(Hint(client, spec, chain, {.verb = HintVerb::kDemote}).ok());
        AllowEvictions();
        break;
      case Verb::kCount:
        break;
    }
    Check();
  }

 private:
  struct Lease {
    LeaseId id;
    uint32_t spec;
    std::vector<Path> blocks;
    absl::Time ends;
  };
  struct Pending {
    std::vector<Path> blocks;
    absl::Time ends;
  };
  // What it held when it was placed; it may hold more since.
  struct Pinned {
    std::set<Path> blocks;
    absl::Time ends;
  };
  struct Client {
    AttachmentId id;
    std::vector<SpecHandle> handles;
    std::vector<Lease> leases;
    std::vector<Pending> pending;
  };

  // Eight or four blocks in an extent.
  static CacheSpec Spec(uint32_t spec) { return SmallSpec(64, spec == 0 ? 64 : 128); }

  // The path to a leaf of a binary tree, chosen by `bits`.
  static std::vector<Path> FullChain(uint32_t spec, uint32_t bits) {
    std::vector<Path> chain;
    Path path = absl::StrCat("s", spec);
    for (uint32_t i = 0; i < kDepth; ++i) {
      absl::StrAppend(&path, "/", (bits >> i) & 1);
      chain.push_back(path);
    }
    return chain;
  }
  // 1 to kDepth blocks of such a path.
  static std::vector<Path> Chain(uint32_t spec, uint32_t bits) {
    std::vector<Path> chain = FullChain(spec, bits >> 4);
    chain.resize(1 + bits % kDepth);
    return chain;
  }
  static std::vector<BlockKey> Keys(const std::vector<Path>& chain) {
    std::vector<BlockKey> keys;
    for (const Path& path : chain) keys.push_back(KeyNamed(path));
    return keys;
  }
  static bool Below(const Path& path, const Path& top) {
    return path == top ||
           (path.size() > top.size() && path.compare(0, top.size() + 1, top + "/") == 0);
  }

  void Attach(Client& client) {
    client = Client();
    client.id = *engine_->Attach(Tenant{"default"}, "property");
    for (uint32_t i = 0; i < kSpecs; ++i) {
      client.handles.push_back(engine_->OpenSpec(client.id, Spec(i), std::nullopt)->handle);
    }
  }

  bool Leased(const Path& path) const {
    for (const Client& client : clients_) {
      for (const Lease& lease : client.leases) {
        if (std::find(lease.blocks.begin(), lease.blocks.end(), path) != lease.blocks.end())
          return true;
      }
    }
    return false;
  }
  bool IsPinned(const Path& path) const {
    return std::any_of(pinned_.begin(), pinned_.end(),
                       [&](const auto& claim) { return claim.second.blocks.contains(path); });
  }
  bool IsPending(const Path& path) const {
    for (const Client& client : clients_) {
      for (const Pending& pending : client.pending) {
        if (std::find(pending.blocks.begin(), pending.blocks.end(), path) != pending.blocks.end())
          return true;
      }
    }
    return false;
  }
  size_t ModelRun(const std::vector<Path>& chain) const {
    size_t run = 0;
    while (run < chain.size() && stored_.contains(chain[run])) ++run;
    return run;
  }

  std::vector<Path> Granted(const ReserveResult& reserved, const std::vector<Path>& chain) {
    const auto ends = std::find_if_not(
        reserved.outcomes.begin(), reserved.outcomes.end(),
        [](ReserveOutcome outcome) { return outcome == ReserveOutcome::kPresent; });
    const auto run = static_cast<size_t>(ends - reserved.outcomes.begin());
    // Room on the upper tier is made before the run is looked at: what had no place below may be
    // gone, if nobody reads it.
    const size_t stored = ModelRun(chain);
    RC_ASSERT(run <= stored);
    if (!tiered_) RC_ASSERT(run == stored);
    for (size_t i = run; i < stored; ++i) RC_ASSERT(!Leased(chain[i]));
    std::vector<Path> granted;
    for (size_t i = 0; i < chain.size(); ++i) {
      const bool present = reserved.outcomes[i] == ReserveOutcome::kPresent;
      RC_ASSERT(present == (i < run));
      if (IsPending(chain[i])) RC_ASSERT(reserved.outcomes[i] == ReserveOutcome::kPending);
      if (reserved.outcomes[i] != ReserveOutcome::kGranted) continue;
      RC_ASSERT(i == run + granted.size());
      granted.push_back(chain[i]);
    }
    return granted;
  }

  void Store(Client& client, uint32_t spec, const std::vector<Path>& chain) {
    const std::vector<BlockKey> keys = Keys(chain);
    const auto reserved = engine_->Reserve(client.id, {.spec = client.handles[spec], .keys = keys});
    if (!reserved.ok()) {
      const std::string why = RefusalReason(reserved.status());
      RC_ASSERT(why == "NO_SPACE" ||
                (quota_bytes_ != TenantQuotas::kNone && why == "TENANT_QUOTA"));
    } else {
      const std::vector<Path> granted = Granted(*reserved, chain);
      std::vector<Checksum128> checksums;
      for (uint32_t i = 0; i < keys.size(); ++i) {
        if (reserved->outcomes[i] != ReserveOutcome::kGranted) continue;
        const auto slot = engine_->OpenWrite(client.id, reserved->reservation, i);
        RC_ASSERT(slot.ok());
        PutContent(*engine_, *slot, keys[i], kContentSeed);
        RC_ASSERT(engine_->Written(client.id, reserved->reservation, i, slot->bytes.size()).ok());
        checksums.push_back(ContentChecksum(keys[i], kContentSeed, Spec(spec)));
      }
      if (!granted.empty()) {
        const auto committed = engine_->Commit(
            client.id, {.reservation = reserved->reservation, .checksums = checksums});
        RC_ASSERT(committed.ok());
        RC_ASSERT(committed->committed == granted.size());
        stored_.insert(granted.begin(), granted.end());
      }
    }
    AllowEvictions();
  }

  void Abandon(Client& client, uint32_t spec, const std::vector<Path>& chain) {
    const auto reserved = engine_->Reserve(
        client.id, {.spec = client.handles[spec], .keys = Keys(chain), .ttl = absl::Seconds(2)});
    if (reserved.ok() && reserved->reservation) {
      client.pending.push_back({Granted(*reserved, chain), clock_.Now() + absl::Seconds(2)});
    }
    AllowEvictions();
  }

  void Acquire(Client& client, uint32_t spec, const std::vector<Path>& chain, uint32_t first) {
    const auto acquired = engine_->Acquire(client.id, {.spec = client.handles[spec],
                                                       .keys = Keys(chain),
                                                       .first_block = first % 3,
                                                       .ttl = absl::Seconds(3)});
    RC_ASSERT(acquired.ok());
    const size_t run = ModelRun(chain);
    RC_ASSERT(acquired->run_blocks == run);
    RC_ASSERT(static_cast<bool>(acquired->lease) == (first % 3 < run));
    if (!acquired->lease) return;
    client.leases.push_back({acquired->lease,
                             spec,
                             {chain.begin() + first % 3, chain.begin() + run},
                             clock_.Now() + absl::Seconds(3)});
    const auto opened = engine_->OpenRead(client.id, acquired->lease, first % 3, 0);
    RC_ASSERT(opened.ok());
    for (size_t i = 0; i < opened->size(); ++i) {
      RC_ASSERT(HasContent(KeyNamed(client.leases.back().blocks[i]), kContentSeed,
                           BytesOf(*engine_, (*opened)[i])));
    }
  }

  void Release(Client& client) {
    if (client.leases.empty()) return;
    RC_ASSERT(engine_->Release(client.id, {{client.leases.front().id}}).value() == 1);
    client.leases.erase(client.leases.begin());
  }

  void Remove(Client& client, uint32_t spec, const std::vector<Path>& chain) {
    const Path& top = chain.back();
    std::set<Path> expected = stored_;
    uint32_t gone = 0, stay = 0;
    if (stored_.contains(top)) {
      for (const Path& path : stored_) {
        if (!Below(path, top)) continue;
        const bool held = std::any_of(stored_.begin(), stored_.end(), [&](const Path& other) {
          return Below(other, path) && Leased(other);
        });
        ++(held ? stay : gone);
        if (!held) expected.erase(path);
      }
    }
    const auto removed = engine_->Remove(client.id, client.handles[spec], {{KeyNamed(top)}});
    RC_ASSERT(removed.ok());
    RC_ASSERT(removed->removed == gone);
    RC_ASSERT(removed->leased == stay);
    stored_ = expected;
  }

  void Quarantine(uint32_t spec, const std::vector<Path>& chain) {
    engine_->Quarantine(Tenant{"default"}, FingerprintOf(Spec(spec)), KeyNamed(chain.back()),
                        "property");
    if (!stored_.contains(chain.back())) return;
    for (auto it = stored_.begin(); it != stored_.end();) {
      it = Below(*it, chain.back()) ? stored_.erase(it) : std::next(it);
    }
  }

  absl::StatusOr<HintResult> Hint(Client& client, uint32_t spec, const std::vector<Path>& chain,
                                  const reprise::Hint& hint) {
    return engine_->Hint(client.id,
                         {.spec = client.handles[spec], .keys = Keys(chain), .hint = hint});
  }

  // Places one of four claims, or ends it.
  void Claim(Client& client, uint32_t spec, const std::vector<Path>& chain, uint32_t bits) {
    const bool pin = bits & 4;
    reprise::Hint hint{.verb = pin ? HintVerb::kPin : HintVerb::kRetain,
                       .claim_id = absl::StrCat("claim", bits % 4),
                       .priority = 1 + bits,
                       .ttl = absl::Seconds(1 + bits % 8)};
    if ((bits & 8) != 0) hint.verb = HintVerb::kRelease;
    const auto result = Hint(client, spec, chain, hint);
    const auto name = std::pair(spec, hint.claim_id);
    pinned_.erase(name);
    if (!result.ok()) {
      RC_ASSERT(RefusalReason(result.status()) == "CLAIMS_FULL");
      return;
    }
    if (hint.verb == HintVerb::kRelease) return;
    const size_t run = ModelRun(chain);
    RC_ASSERT(result->blocks <= run);
    if (result->outcome == HintOutcome::kApplied) RC_ASSERT(result->blocks == chain.size());
    if (result->outcome == HintOutcome::kDeferred) RC_ASSERT(result->blocks == run);
    if (pin) {
      pinned_[name] = {{chain.begin(), chain.begin() + result->blocks}, clock_.Now() + hint.ttl};
    }
  }

  void EvictHint(Client& client, uint32_t spec, const std::vector<Path>& chain, uint32_t first) {
    const size_t run = ModelRun(chain);
    const uint32_t from = first % chain.size();
    const auto result = Hint(client, spec, chain, {.verb = HintVerb::kEvict, .first_block = from});
    RC_ASSERT(result.ok());
    RC_ASSERT((result->outcome == HintOutcome::kMissing) == (run <= from));
    for (uint32_t i = 0; i < result->blocks; ++i) {
      const Path& gone = chain[run - 1 - i];
      RC_ASSERT(run - 1 - i >= from && !Leased(gone) && !IsPinned(gone));
      RC_ASSERT(stored_.erase(gone) == 1u);
    }
  }

  void Detach(Client& client) {
    engine_->Detach(client.id);
    engine_->Unshared(client.id);
    Attach(client);
  }

  // Calls `with` with the blocks of the chain that are stored, in place.
  template <typename With>
  void Opened(Client& client, uint32_t spec, const std::vector<Path>& chain, const With& with) {
    const auto acquired =
        engine_->Acquire(client.id, {.spec = client.handles[spec], .keys = Keys(chain)});
    RC_ASSERT(acquired.ok());
    if (!acquired->lease) return;
    with(engine_->OpenRead(client.id, acquired->lease, 0, 0).value());
    RC_ASSERT(engine_->Release(client.id, {{acquired->lease}}).value() == 1);
  }

  // The client maps an extent of device memory, or is said to have none mapped any more.
  void Share(Client& client, uint32_t spec, const std::vector<Path>& chain, uint32_t bits) {
    if (bits % 4 == 0) engine_->Unshared(client.id);
    if (bits % 4 == 0 || control_->lost) return;
    Opened(client, spec, chain, [&](const std::vector<lanes::PinnedBytes>& blocks) {
      if (blocks.back().memory != lanes::MemoryKind::kDevice) return;
      const auto place = engine_->Export(blocks.back().bytes.data());
      RC_ASSERT(place.has_value() && engine_->Share(place->extent, client.id).ok());
    });
  }

  // The device is lost, and a reader of it is the first to see it. Leases keep nothing there.
  void Lose(Client& client, uint32_t spec, const std::vector<Path>& chain) {
    if (control_->lost) return;
    Advance(absl::Seconds(2));  // so that nobody is writing
    Opened(client, spec, chain, [&](const std::vector<lanes::PinnedBytes>& blocks) {
      if (blocks.back().memory != lanes::MemoryKind::kDevice) return;
      control_->lost = true;
      std::vector<uint8_t> bytes(blocks.back().bytes.size());
      RC_ASSERT(absl::IsInternal(engine_->CopyToHost(blocks.back().bytes, bytes)));
    });
    if (!control_->lost) return;
    engine_->Tick();
    stored_ = Observed();
    for (Client& holder : clients_) {
      for (Lease& lease : holder.leases) {
        std::erase_if(lease.blocks, [&](const Path& path) { return !stored_.contains(path); });
      }
    }
    for (const auto& [block, tier] : watched_) RC_ASSERT(tier != Tier::kHbm);
  }

  void Advance(absl::Duration by) {
    clock_.Advance(by);
    const absl::Time now = clock_.Now();
    engine_->Tick();
    std::erase_if(pinned_, [&](const auto& claim) { return claim.second.ends <= now; });
    for (Client& client : clients_) {
      std::erase_if(client.leases, [&](const Lease& lease) { return lease.ends <= now; });
      std::erase_if(client.pending, [&](const Pending& pending) { return pending.ends <= now; });
      if (!engine_->KeepAlive(client.id).ok()) Attach(client);
      for (Lease& lease : client.leases)
        lease.ends = now + absl::Seconds(3);  // what the keep-alive did
    }
  }

  void Evict(bool device_refuses) {
    control_->refuses = device_refuses;
    engine_->EvictToWatermark();
    control_->refuses = false;
    AllowEvictions();
  }

  std::set<Path> Observed() {
    std::set<Path> observed;
    for (uint32_t spec = 0; spec < kSpecs; ++spec) {
      for (uint32_t bits = 0; bits < (1u << kDepth); ++bits) {
        const std::vector<Path> chain = FullChain(spec, bits);
        const std::vector<BlockKey> keys = Keys(chain);
        const auto found = engine_->Lookup(clients_[0].id, clients_[0].handles[spec], keys);
        RC_ASSERT(found.ok());
        observed.insert(chain.begin(), chain.begin() + found->run_blocks);
        CheckTiers(FingerprintOf(Spec(spec)), keys, *found);
      }
    }
    return observed;
  }

  // A run's tiers are those of the events. `watched_` lags while a verb is being judged.
  void CheckTiers(const Fingerprint& fingerprint, const std::vector<BlockKey>& keys,
                  const LookupResult& found) {
    Hear();
    size_t at = 0;
    for (const TierRun& run : found.tiers) {
      for (uint32_t i = 0; i < run.blocks; ++i, ++at) {
        const auto watched = watched_.find({fingerprint, keys.at(at)});
        RC_ASSERT(watched != watched_.end() && watched->second == run.tier);
      }
    }
    RC_ASSERT(at == found.run_blocks);
  }

  void Hear() {
    while (true) {
      const auto event = watch_->Next(absl::InfinitePast());
      RC_ASSERT(event.ok());
      if (!event->has_value()) break;
      for (const BlockKey& key : (*event)->keys) {
        const auto id = std::pair((*event)->fingerprint, key);
        if ((*event)->kind == BlockEvent::Kind::kStored) {
          const auto [known, is_new] = watched_.emplace(id, (*event)->tier);
          // A block that is stored already is told of again when its tier has changed.
          RC_ASSERT(is_new || known->second != (*event)->tier);
          known->second = (*event)->tier;
        }
        if ((*event)->kind == BlockEvent::Kind::kRemoved) RC_ASSERT(watched_.erase(id) == 1u);
      }
    }
  }

  // After a verb that may evict: what went was stored and not leased, the rest is judged by Check.
  void AllowEvictions() {
    const std::set<Path> observed = Observed();
    for (const Path& path : stored_) {
      if (!observed.contains(path)) RC_ASSERT(!Leased(path) && !IsPinned(path));
    }
    std::erase_if(stored_, [&](const Path& path) { return !observed.contains(path); });
  }

  // What was pinned and is gone all the same went by its owner's word, or its bytes were lost.
  void ForgetLostPins() {
    for (auto& [name, claim] : pinned_) {
      std::erase_if(claim.blocks, [&](const Path& path) { return !stored_.contains(path); });
    }
  }

  void Check() {
    ForgetLostPins();
    const absl::Status sound = engine_->CheckInvariants();
    if (!sound.ok()) RC_FAIL(std::string(sound.message()));
    RC_ASSERT(Observed() == stored_);
    RC_ASSERT(engine_->Describe(Tenant{"default"}).blocks == stored_.size());
    Hear();
    RC_ASSERT(watched_.size() == stored_.size());
  }

  const bool tiered_;
  const uint64_t quota_bytes_;
  ManualClock clock_;
  const std::shared_ptr<reprise::testing::HostHbmControl> control_ =
      std::make_shared<reprise::testing::HostHbmControl>();
  std::unique_ptr<ShardEngine> engine_;
  std::unique_ptr<BlockWatch> watch_;
  Client clients_[2];
  std::set<Path> stored_;
  std::map<std::pair<uint32_t, std::string>, Pinned> pinned_;  // by spec and name
  std::map<std::pair<Fingerprint, BlockKey>, Tier> watched_;
};

}  // namespace reprise::shard
