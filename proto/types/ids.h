// Distinct types for the numbers that would otherwise all be uint64_t.
//
// Thread safety: values; no shared state.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace reprise {

// A number that only equals numbers of its own kind. 0 is "none" for every kind.
template <typename Tag, typename Rep>
struct StrongId {
  Rep value = 0;

  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep v) : value(v) {}
  constexpr explicit operator bool() const { return value != 0; }
  friend constexpr bool operator==(const StrongId&, const StrongId&) = default;
  friend constexpr auto operator<=>(const StrongId&, const StrongId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value);
  }
};

using AttachmentId =
    StrongId<struct AttachmentIdTag, uint64_t>;  // random: also the proof of ownership
using LeaseId = StrongId<struct LeaseIdTag, uint64_t>;
using ReservationId = StrongId<struct ReservationIdTag, uint64_t>;
using SpecHandle = StrongId<struct SpecHandleTag, uint32_t>;  // per attachment
using KeySpaceId =
    StrongId<struct KeySpaceIdTag, uint32_t>;       // per shard: one (tenant, fingerprint)
using Epoch = StrongId<struct EpochTag, uint64_t>;  // of a topology; rises with every change

// A shard's stable name, e.g. "shard-0".
struct ShardId {
  std::string name;
  friend bool operator==(const ShardId&, const ShardId&) = default;
  friend auto operator<=>(const ShardId&, const ShardId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const ShardId& id) {
    return H::combine(std::move(h), id.name);
  }
};

// Who owns blocks. Derived from the caller's identity by the transport, never from a message field.
struct Tenant {
  std::string name;
  friend bool operator==(const Tenant&, const Tenant&) = default;
  friend auto operator<=>(const Tenant&, const Tenant&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Tenant& t) {
    return H::combine(std::move(h), t.name);
  }
};

enum class Tier : uint8_t { kHbm = 1, kDram = 2, kNvme = 3 };
enum class LaneKind : uint8_t { kInProcess = 0, kStream = 1, kView = 2, kNccl = 3, kTcp = 4 };
inline constexpr size_t kLaneKinds = 5;  // of tables by LaneKind
// Bytes come through the host's memory and its network: never from device memory as they lie, and
// faster from two shards than from one.
constexpr bool IsHostNetwork(LaneKind kind) {
  return kind == LaneKind::kStream || kind == LaneKind::kTcp;
}

// The tenant of a connection without an identity.
inline constexpr char kDefaultTenant[] = "default";

const char* TierName(Tier tier);          // "hbm", "dram", "nvme"
const char* LaneKindName(LaneKind kind);  // "in-process", "stream", "view", ...

}  // namespace reprise
