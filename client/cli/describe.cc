// `reprise describe`: the router, the shards, how full they are and what they hold.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "nlohmann/json.hpp"
#include "proto/wire/enums.h"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;

struct DescribeOptions {
  Common common;
  Where where;
  bool limits = false;  // in text; JSON has them always
};

std::string LaneNameOf(int lane) {
  const absl::StatusOr<LaneKind> kind = wire::FromMessage(static_cast<v1::LaneKind>(lane), "lanes");
  return kind.ok() ? LaneKindName(*kind) : "unknown";
}

template <typename Limits>
Json LimitsJson(const Limits& limits) {
  Json json = Json::object();
  for (const auto& limit : limits) json[limit.name()] = limit.value();
  return json;
}

Json MembershipJson(const v1::MembershipState& membership) {
  return {{"source", membership.source()},
          {"trouble", membership.trouble()},
          {"trouble_ms", membership.trouble_ms()}};
}

Json ShardJson(const ShardReport& shard) {
  Json json = {{"id", shard.shard_id}, {"address", shard.address}};
  if (!shard.state.empty()) json["state"] = shard.state;
  if (!shard.status.ok()) {
    json["error"] = std::string(shard.status.message());
    return json;
  }
  const auto& d = shard.description;
  json["version"] = d.version();
  json["uptime_ms"] = d.uptime_ms();
  json["draining"] = d.draining();
  json["tiers"] = Json::array();
  for (const auto& tier : d.tiers()) {
    json["tiers"].push_back({{"tier", TierNameOf(tier.tier())},
                             {"used_bytes", tier.used_bytes()},
                             {"capacity_bytes", tier.capacity_bytes()},
                             {"lost", tier.lost()}});
  }
  if (d.has_kept_disk()) {
    json["kept_disk"] = {{"restored_blocks", d.kept_disk().restored_blocks()},
                         {"waiting_blocks", d.kept_disk().waiting_blocks()},
                         {"to_scrub_blocks", d.kept_disk().to_scrub_blocks()},
                         {"clean", d.kept_disk().clean()},
                         {"why_empty", d.kept_disk().why_empty()},
                         {"why_not_kept", d.kept_disk().why_not_kept()}};
  }
  json["blocks"] = d.blocks();
  json["leases"] = d.leases();
  json["reservations"] = d.reservations();
  json["attachments"] = d.attachments();
  json["claims"] = {{"claims", d.claims().claims()},
                    {"claimed_bytes", d.claims().claimed_bytes()},
                    {"claimed_bytes_max", d.claims().claimed_bytes_max()},
                    {"pinned_bytes", d.claims().pinned_bytes()},
                    {"pinned_bytes_max", d.claims().pinned_bytes_max()}};
  json["lanes"] = Json::array();
  for (const int lane : d.lanes()) json["lanes"].push_back(LaneNameOf(lane));
  json["absent_lanes"] = Json::object();
  for (const auto& absent : d.absent_lanes()) {
    json["absent_lanes"][LaneNameOf(absent.lane())] = absent.why();
  }
  json["counters"] = Json::object();
  for (const auto& counter : d.counters()) json["counters"][counter.name()] = counter.value();
  if (d.has_membership()) json["membership"] = MembershipJson(d.membership());
  json["limits"] = LimitsJson(d.limits());
  return json;
}

Json RouterJson(const ClusterReport& report) {
  if (report.router.empty()) return nullptr;
  const auto& d = report.router_description;
  Json json = {{"address", report.router}, {"version", d.version()},   {"uptime_ms", d.uptime_ms()},
               {"epoch", d.epoch()},       {"sessions", d.sessions()}, {"shards", Json::array()}};
  for (const auto& shard : d.shards()) {
    json["shards"].push_back({{"id", shard.shard().shard_id()},
                              {"address", shard.shard().address()},
                              {"state", StateName(shard.state())},
                              {"blocks", shard.blocks()},
                              {"last_sequence", shard.last_sequence()},
                              {"resyncs", shard.resyncs()},
                              {"age_ms", shard.age_ms()}});
  }
  json["membership"] = MembershipJson(d.membership());
  json["limits"] = LimitsJson(d.limits());
  return json;
}

// "view: 120 blocks read, 40 written". Empty for a lane that was not used.
std::string LaneUseOf(const v1::ShardServiceDescribeResponse& d, const std::string& lane) {
  uint64_t read = 0, written = 0;
  for (const auto& counter : d.counters()) {
    if (counter.name() == absl::StrCat("lane_", lane, "_blocks_read_total")) {
      read = counter.value();
    }
    if (counter.name() == absl::StrCat("lane_", lane, "_blocks_written_total")) {
      written = counter.value();
    }
  }
  if (read + written == 0) return "";
  return absl::StrCat(" (", read, " blocks read, ", written, " written)");
}

// Which lanes each shard offers, what went by them, and why others are not offered.
void PrintLanes(const ClusterReport& report) {
  for (const ShardReport& shard : report.shards) {
    if (!shard.status.ok()) continue;
    const auto& d = shard.description;
    std::vector<std::string> lanes;
    for (const int lane : d.lanes()) {
      lanes.push_back(absl::StrCat(LaneNameOf(lane), LaneUseOf(d, LaneNameOf(lane))));
    }
    std::printf("%s offers %s\n", shard.shard_id.c_str(), absl::StrJoin(lanes, ", ").c_str());
    for (const auto& absent : d.absent_lanes()) {
      std::printf("  no %s: %s\n", LaneNameOf(absent.lane()).c_str(), absent.why().c_str());
    }
  }
}

void PrintClaims(const ClusterReport& report) {
  for (const ShardReport& shard : report.shards) {
    const auto& claims = shard.description.claims();
    if (!shard.status.ok() || claims.claims() == 0) continue;
    std::printf(
        "%s keeps %s of at most %s for %llu %s, %s of it pinned\n", shard.shard_id.c_str(),
        HumanBytes(claims.claimed_bytes()).c_str(), HumanBytes(claims.claimed_bytes_max()).c_str(),
        static_cast<unsigned long long>(claims.claims()), claims.claims() == 1 ? "claim" : "claims",
        HumanBytes(claims.pinned_bytes()).c_str());
  }
}

// What came back from a disk that is kept over restarts, and what is to become of it.
void PrintKeptDisks(const ClusterReport& report) {
  for (const ShardReport& shard : report.shards) {
    if (!shard.status.ok() || !shard.description.has_kept_disk()) continue;
    const auto& disk = shard.description.kept_disk();
    std::string line =
        absl::StrCat(shard.shard_id, " keeps its disk: ", disk.restored_blocks(),
                     disk.restored_blocks() == 1 ? " block" : " blocks", " of its last process");
    if (disk.to_scrub_blocks() > 0) {
      absl::StrAppend(&line, ", ", disk.to_scrub_blocks(), " still to be read and checked");
    }
    if (disk.waiting_blocks() > disk.to_scrub_blocks()) {
      absl::StrAppend(&line, ", ", disk.waiting_blocks() - disk.to_scrub_blocks(),
                      " when the block that they hang from is stored again");
    }
    if (!disk.why_empty().empty()) absl::StrAppend(&line, "; it started empty: ", disk.why_empty());
    if (!disk.why_not_kept().empty()) {
      absl::StrAppend(&line, "; its next process will find nothing: ", disk.why_not_kept());
    }
    std::printf("%s\n", line.c_str());
  }
}

// Who cannot read all of who belongs to the cluster, and goes by what was last known.
void PrintMembershipTrouble(const std::string& who, const v1::MembershipState& membership) {
  if (membership.trouble().empty()) return;
  std::printf("%s has had trouble with the members for %s (%s): %s\n", who.c_str(),
              HumanDuration(absl::Milliseconds(membership.trouble_ms())).c_str(),
              membership.source().c_str(), membership.trouble().c_str());
}

void PrintText(const ClusterReport& report) {
  if (!report.router.empty()) {
    const auto& d = report.router_description;
    std::printf("router %s  %s  up %s  epoch %llu  %llu sessions\n", report.router.c_str(),
                d.version().c_str(), HumanDuration(absl::Milliseconds(d.uptime_ms())).c_str(),
                static_cast<unsigned long long>(d.epoch()),
                static_cast<unsigned long long>(d.sessions()));
    if (!d.membership().source().empty()) {
      std::printf("members: %s\n", d.membership().source().c_str());
    }
    std::printf("\n");
  }
  std::vector<std::vector<std::string>> rows;
  for (const ShardReport& shard : report.shards) {
    const auto& d = shard.description;
    const std::string state = !shard.state.empty() ? shard.state
                              : d.draining()       ? "draining"
                                                   : "alive";
    if (!shard.status.ok()) {
      rows.push_back({shard.shard_id.empty() ? "?" : shard.shard_id, shard.address,
                      shard.state.empty() ? "unreachable" : shard.state, "", "", "", "", ""});
      continue;
    }
    std::string name = shard.shard_id, address = shard.address, shown = state;
    for (const auto& tier : d.tiers()) {
      rows.push_back(
          {name, address, shown,
           absl::StrCat(TierNameOf(tier.tier()), tier.lost() ? " (lost)" : ""),
           Bar(tier.used_bytes(), tier.capacity_bytes()),
           absl::StrCat(HumanBytes(tier.used_bytes()), " / ", HumanBytes(tier.capacity_bytes())),
           name.empty() ? "" : absl::StrCat(d.blocks()),
           name.empty() ? "" : absl::StrCat(d.leases())});
      name = address = shown = "";
    }
  }
  std::printf(
      "%s", Table({"SHARD", "ADDRESS", "STATE", "TIER", "USED", "BYTES", "BLOCKS", "LEASES"}, rows)
                .c_str());
  PrintLanes(report);
  PrintKeptDisks(report);
  PrintClaims(report);
  PrintMembershipTrouble("the router", report.router_description.membership());
  for (const ShardReport& shard : report.shards) {
    PrintMembershipTrouble(shard.shard_id, shard.description.membership());
  }
}

// The router's limits, and the shards' once: they are the same in every shard of one version.
void PrintLimits(const ClusterReport& report) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&rows](const char* whose, const auto& limits) {
    for (const auto& limit : limits)
      rows.push_back({whose, limit.name(), absl::StrCat(limit.value())});
  };
  add("router", report.router_description.limits());
  for (const ShardReport& shard : report.shards) {
    if (!shard.status.ok()) continue;
    add("shard", shard.description.limits());
    break;
  }
  std::printf("\n%s", Table({"LIMIT OF", "NAME", "VALUE"}, rows).c_str());
}

absl::StatusOr<ClusterReport> Ask(const Where& where) {
  Waiting waiting("asking the shards");
  return DescribeCluster(where);
}

ExitCode Describe(const DescribeOptions& options) {
  const absl::StatusOr<ClusterReport> report = Ask(options.where);
  if (!report.ok()) return Complain(report.status());
  if (options.common.json()) {
    Json json = {{"router", RouterJson(*report)}, {"shards", Json::array()}};
    for (const ShardReport& shard : report->shards) json["shards"].push_back(ShardJson(shard));
    PrintJson(json);
  } else {
    PrintText(*report);
    if (options.limits) PrintLimits(*report);
  }
  bool any = report->shards.empty();
  for (const ShardReport& shard : report->shards) {
    any = any || shard.status.ok();
    if (!shard.status.ok()) {
      std::fprintf(stderr, "reprise: %s\n", std::string(shard.status.message()).c_str());
    }
  }
  return any ? ExitCode::kOk : ExitCode::kUnreachable;
}

}  // namespace

Registered AddDescribe(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("describe", "the router and the shards: state, memory, blocks");
  auto options = std::make_shared<DescribeOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_flag("--limits", options->limits, "the limits too (JSON has them always)");
  return {command, [options] { return Describe(*options); }};
}

}  // namespace reprise::cli
