#include "client/cli/top/view.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace reprise::cli {
namespace {

struct Source {
  Rate rate;
  absl::string_view counter;
};
constexpr Source kSources[] = {
    {Rate::kAskedBlocks, "hit_blocks_total"},
    {Rate::kAskedBlocks, "miss_blocks_total"},
    {Rate::kHitBlocks, "hit_blocks_total"},
    {Rate::kAskedTokens, "hit_tokens_total"},
    {Rate::kAskedTokens, "miss_tokens_total"},
    {Rate::kHitTokens, "hit_tokens_total"},
    {Rate::kStoredBlocks, "stored_blocks_total"},
    {Rate::kInBytes, "lane_view_bytes_written_total"},
    {Rate::kInBytes, "lane_nccl_bytes_written_total"},
    {Rate::kInBytes, "lane_tcp_bytes_written_total"},
    {Rate::kInBytes, "lane_stream_bytes_written_total"},
    {Rate::kInViewBytes, "lane_view_bytes_written_total"},
    {Rate::kInNcclBytes, "lane_nccl_bytes_written_total"},
    {Rate::kInTcpBytes, "lane_tcp_bytes_written_total"},
    {Rate::kInStreamBytes, "lane_stream_bytes_written_total"},
    {Rate::kOutBytes, "lane_view_bytes_read_total"},
    {Rate::kOutBytes, "lane_nccl_bytes_read_total"},
    {Rate::kOutBytes, "lane_tcp_bytes_read_total"},
    {Rate::kOutBytes, "lane_stream_bytes_read_total"},
    {Rate::kOutViewBytes, "lane_view_bytes_read_total"},
    {Rate::kOutNcclBytes, "lane_nccl_bytes_read_total"},
    {Rate::kOutTcpBytes, "lane_tcp_bytes_read_total"},
    {Rate::kOutStreamBytes, "lane_stream_bytes_read_total"},
    // evicted_claimed_blocks_total is of these.
    {Rate::kEvictedBlocks, "evicted_watermark_blocks_total"},
    {Rate::kEvictedBlocks, "evicted_own_space_blocks_total"},
    {Rate::kEvictedBlocks, "evicted_reclaim_blocks_total"},
    {Rate::kEvictedBlocks, "evicted_quota_blocks_total"},
    {Rate::kDemotedBlocks, "demoted_blocks_total"},
    {Rate::kErrors, "quarantined_blocks_total"},
    {Rate::kErrors, "lost_blocks_total"},
    {Rate::kErrors, "corrupt_blocks_total"},
    {Rate::kErrors, "pulls_failed_total"},
    {Rate::kErrors, "peer_failures_total"},
    {Rate::kErrors, "nccl_link_failures_total"},
};
constexpr absl::string_view kRefusedPrefix = "refused_";  // a counter for each reason

std::array<uint64_t, kRates> Totals(const v1::ShardServiceDescribeResponse& shard) {
  std::array<uint64_t, kRates> totals{};
  const auto add = [&totals](Rate rate, uint64_t value) {
    totals[static_cast<size_t>(rate)] += value;
  };
  for (const auto& counter : shard.counters()) {
    for (const Source& source : kSources) {
      if (source.counter == counter.name()) add(source.rate, counter.value());
    }
    if (absl::StartsWith(counter.name(), kRefusedPrefix)) add(Rate::kRefusals, counter.value());
  }
  return totals;
}

// The same shard in another sample: of that id at that address, else of that id (a shard may come
// back elsewhere), else at that address (it has not told its id yet). nullptr: it is not there.
const TopShard* Find(const std::vector<TopShard>& shards, const ShardReport& wanted) {
  const TopShard* of_id = nullptr;
  const TopShard* at_address = nullptr;
  for (const TopShard& shard : shards) {
    const bool same_id = shard.report.shard_id == wanted.shard_id && !wanted.shard_id.empty();
    const bool same_address = shard.report.address == wanted.address;
    const bool nameless = shard.report.shard_id.empty() || wanted.shard_id.empty();
    if (same_id && same_address) return &shard;
    if (same_id) of_id = &shard;
    if (same_address && nameless) at_address = &shard;
  }
  return of_id != nullptr ? of_id : at_address;
}

// Sets `rates`, or `note` when there is nothing to compare with.
void Compare(const TopShard& before, const TopShard& now, TopRow& row) {
  const auto& then = before.report.description;
  const auto& d = now.report.description;
  const std::array<uint64_t, kRates> from = Totals(then), to = Totals(d);
  bool restarted = then.incarnation() != d.incarnation();
  for (size_t i = 0; i < kRates; ++i) restarted = restarted || to[i] < from[i];
  if (restarted) {
    row.note = "restarted";
    return;
  }
  const absl::Duration elapsed = now.at - before.at;
  if (elapsed <= absl::ZeroDuration()) return;
  Rates rates{.elapsed = elapsed};
  for (size_t i = 0; i < kRates; ++i) {
    rates.counted[i] = to[i] - from[i];
    rates.per_second[i] = static_cast<double>(rates.counted[i]) / absl::ToDoubleSeconds(elapsed);
  }
  row.rates = rates;
}

// The shard knows first that it drains. What a router that is silent now said earlier is no news.
std::string StateOf(const ShardReport& shard, bool router_answers) {
  if (!shard.status.ok()) return shard.state == "dead" && router_answers ? "dead" : "silent";
  if (shard.description.draining()) return "draining";
  return router_answers && !shard.state.empty() ? shard.state : "alive";
}

TopRow RowOf(const TopSample* before, const TopSample& now, const TopShard& shard) {
  const auto& d = shard.report.description;
  TopRow row{.id = shard.report.shard_id,
             .address = shard.report.address,
             .state = StateOf(shard.report, now.router_status.ok()),
             .answered = shard.report.status.ok()};
  if (!row.answered) {
    row.note = std::string(shard.report.status.message());
    return row;
  }
  for (const auto& tier : d.tiers()) {
    row.tiers[tier.tier()] = {.used_bytes = tier.used_bytes(),
                              .capacity_bytes = tier.capacity_bytes(),
                              .lost = tier.lost()};
  }
  row.blocks = d.blocks();
  row.leases = d.leases();
  row.attachments = d.attachments();
  for (const int lane : d.lanes()) row.lanes.push_back(static_cast<v1::LaneKind>(lane));
  if (before == nullptr) return row;
  const TopShard* const then = Find(before->shards, shard.report);
  if (then == nullptr) row.note = "new";
  if (then != nullptr && then->report.status.ok()) Compare(*then, shard, row);
  return row;
}

TopRow TotalOf(const std::vector<TopRow>& rows) {
  TopRow total{.id = "total"};
  for (const TopRow& row : rows) {
    total.answered = total.answered || row.answered;
    for (const auto& [tier, use] : row.tiers) {
      total.tiers[tier].used_bytes += use.used_bytes;
      total.tiers[tier].capacity_bytes += use.capacity_bytes;
      total.tiers[tier].lost |= use.lost;
    }
    total.blocks += row.blocks;
    total.leases += row.leases;
    total.attachments += row.attachments;
    for (const v1::LaneKind lane : row.lanes) {
      if (std::find(total.lanes.begin(), total.lanes.end(), lane) == total.lanes.end())
        total.lanes.push_back(lane);
    }
    if (!row.rates.has_value()) continue;
    if (!total.rates.has_value()) total.rates.emplace();
    for (size_t i = 0; i < kRates; ++i) {
      total.rates->counted[i] += row.rates->counted[i];
      total.rates->per_second[i] += row.rates->per_second[i];
    }
  }
  return total;
}

size_t DigitsOf(absl::string_view text) {
  return std::min(text.find_first_not_of("0123456789"), text.size());
}

// Numbers within names by their value.
bool NameBefore(absl::string_view a, absl::string_view b) {
  const auto take_number = [](absl::string_view& text) {
    absl::string_view number = text.substr(0, DigitsOf(text));
    text.remove_prefix(number.size());
    number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
    return number;
  };
  while (!a.empty() && !b.empty()) {
    if (DigitsOf(a) > 0 && DigitsOf(b) > 0) {
      const absl::string_view x = take_number(a), y = take_number(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a[0] != b[0]) return a[0] < b[0];
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  return a.size() < b.size();
}

double WeightOf(const TopRow& row, TopOrder order) {
  double weight = 0;
  if (order == TopOrder::kMemory) {
    for (const auto& [tier, use] : row.tiers) weight += static_cast<double>(use.used_bytes);
  } else if (order != TopOrder::kName && row.rates.has_value()) {
    weight = order == TopOrder::kHits
                 ? row.rates->PerSecond(Rate::kHitBlocks)
                 : row.rates->PerSecond(Rate::kInBytes) + row.rates->PerSecond(Rate::kOutBytes);
  }
  return weight;
}

}  // namespace

const char* RateName(Rate rate) {
  constexpr std::array<const char*, kRates> kNames = {
      "asked_blocks",   "hit_blocks",     "asked_tokens",   "hit_tokens",    "stored_blocks",
      "in_bytes",       "in_view_bytes",  "in_nccl_bytes",  "in_tcp_bytes",  "in_stream_bytes",
      "out_bytes",      "out_view_bytes", "out_nccl_bytes", "out_tcp_bytes", "out_stream_bytes",
      "evicted_blocks", "demoted_blocks", "refusals",       "errors"};
  return kNames[static_cast<size_t>(rate)];
}

std::optional<double> Rates::HitShare() const {
  const uint64_t asked = Counted(Rate::kAskedBlocks);
  if (asked == 0) return std::nullopt;
  return static_cast<double>(Counted(Rate::kHitBlocks)) / static_cast<double>(asked);
}

TopView MakeTopView(const TopSample* before, const TopSample& now, TopOrder order) {
  TopView view{.wall = now.wall,
               .elapsed = before == nullptr ? absl::ZeroDuration() : now.at - before->at,
               .router = now.router,
               .router_status = now.router_status,
               .router_age = now.router.empty() ? absl::ZeroDuration() : now.at - now.router_at,
               .epoch = now.router_description.epoch(),
               .sessions = now.router_description.sessions()};
  const v1::MembershipState& members = now.router_description.membership();
  view.members_trouble = members.trouble();
  view.members_trouble_age = absl::Milliseconds(members.trouble_ms());
  for (const TopShard& shard : now.shards) view.rows.push_back(RowOf(before, now, shard));
  if (before != nullptr) {
    for (const TopShard& shard : before->shards) {
      if (Find(now.shards, shard.report) != nullptr) continue;
      view.rows.push_back({.id = shard.report.shard_id,
                           .address = shard.report.address,
                           .state = "gone",
                           .note = "no member of the cluster any more"});
    }
  }
  view.total = TotalOf(view.rows);
  if (view.total.rates.has_value()) view.total.rates->elapsed = view.elapsed;
  for (const TopRow& row : view.rows) {
    ++view.states[row.state];
    if (row.rates.has_value()) ++view.rated_shards;
  }
  std::stable_sort(view.rows.begin(), view.rows.end(), [order](const TopRow& a, const TopRow& b) {
    const double weight_a = WeightOf(a, order), weight_b = WeightOf(b, order);
    return weight_a != weight_b ? weight_a > weight_b : NameBefore(a.name(), b.name());
  });
  return view;
}

TopSample Baseline(const TopSample& before, TopSample now) {
  for (TopShard& shard : now.shards) {
    if (shard.report.status.ok()) continue;
    const TopShard* const then = Find(before.shards, shard.report);
    if (then != nullptr && then->report.status.ok()) shard = *then;
  }
  return now;
}

}  // namespace reprise::cli
