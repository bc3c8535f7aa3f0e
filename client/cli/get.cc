// `reprise get shards|specs|blocks|sessions`: lists of what the cluster holds.
#include <cstdio>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/cluster_view.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "nlohmann/json.hpp"
#include "proto/types/block_key.h"
#include "proto/types/cache_spec.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"

namespace reprise::cli {
namespace {

using Json = nlohmann::ordered_json;

struct GetOptions {
  Common common;
  Where where;
  std::string what;
  std::string session;
  std::string fingerprint;
  size_t limit = 100;
};

// A list as JSON and as a table.
struct List {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  Json json = Json::array();
  bool cut = false;
};

constexpr size_t kShortHex = 12;

List Shards(const ClusterReport& report) {
  List list{.head = {"SHARD", "ADDRESS", "STATE", "BLOCKS"}, .rows = {}};
  for (const ShardReport& shard : report.shards) {
    const std::string state = !shard.status.ok() && shard.state.empty() ? "unreachable"
                              : shard.state.empty()                     ? "alive"
                                                                        : shard.state;
    list.rows.push_back({shard.shard_id, shard.address, state,
                         shard.status.ok() ? absl::StrCat(shard.description.blocks()) : "?"});
    Json json = {{"id", shard.shard_id}, {"address", shard.address}, {"state", state}};
    if (shard.status.ok()) json["blocks"] = shard.description.blocks();
    list.json.push_back(std::move(json));
  }
  return list;
}

List Specs(const ClusterReport& report) {
  struct Use {
    v1::ShardServiceDescribeResponse::Spec spec;
    uint64_t blocks = 0;
    std::set<std::string> shards;
  };
  std::map<std::pair<std::string, std::string>, Use> uses;  // by tenant and fingerprint
  for (const ShardReport& shard : report.shards) {
    for (const auto& spec : shard.description.specs()) {
      Use& use = uses[{spec.tenant(), spec.fingerprint()}];
      use.spec = spec;
      use.blocks += spec.blocks();
      use.shards.insert(shard.shard_id);
    }
  }
  List list{.head = {"FINGERPRINT", "BLOCK", "BLOCKS", "SHARDS", "TENANT", "SPEC"}, .rows = {}};
  for (const auto& [name, use] : uses) {
    const auto& [tenant, fingerprint] = name;
    const CacheSpec spec = wire::FromMessage(use.spec.spec());
    const std::string hex = HexOf(fingerprint);
    list.rows.push_back({hex.substr(0, kShortHex), HumanBytes(use.spec.block_bytes()),
                         absl::StrCat(use.blocks), absl::StrCat(use.shards.size()), tenant,
                         DescribeSpec(spec)});
    list.json.push_back({{"fingerprint", hex},
                         {"block_bytes", use.spec.block_bytes()},
                         {"blocks", use.blocks},
                         {"shards", use.shards},
                         {"tenant", tenant},
                         {"spec", DescribeSpec(spec)}});
  }
  return list;
}

bool Wanted(const GetOptions& options, const v1::WatchBlocksResponse::Stored& stored) {
  return (options.session.empty() || stored.session_id() == options.session) &&
         (options.fingerprint.empty() ||
          HexOf(stored.fingerprint()).rfind(options.fingerprint, 0) == 0);
}

// Calls `on_stored(shard, stored)` for what living shards hold; it returns false when it has
// enough.
using OnStored = std::function<bool(const ShardReport&, const v1::WatchBlocksResponse::Stored&)>;
absl::Status ForEachStored(const GetOptions& options, const ClusterReport& report,
                           const OnStored& on_stored) {
  absl::Status last;
  bool any = false;
  for (const ShardReport& shard : report.shards) {
    if (!shard.status.ok()) continue;
    const absl::Time deadline = absl::Now() + absl::Seconds(options.where.timeout_s);
    const absl::Status status = ReadSnapshot(
        {shard.address, report.credentials}, deadline,
        [&](const auto& stored) { return !Wanted(options, stored) || on_stored(shard, stored); });
    any = any || status.ok();
    if (!status.ok()) last = status;
  }
  return any ? absl::OkStatus() : last;
}

absl::StatusOr<List> Blocks(const GetOptions& options, const ClusterReport& report) {
  List list{.head = {"KEY", "SPEC", "SHARD", "TIER", "SESSION"}, .rows = {}};
  const absl::Status status =
      ForEachStored(options, report, [&](const ShardReport& shard, const auto& stored) {
        for (size_t at = 0; at + kDigestBytes <= stored.keys().size(); at += kDigestBytes) {
          if (list.rows.size() >= options.limit) {
            list.cut = true;
            return false;
          }
          const std::string key = HexOf(stored.keys().substr(at, kDigestBytes));
          const std::string fingerprint = HexOf(stored.fingerprint());
          list.rows.push_back({key.substr(0, kShortHex), fingerprint.substr(0, kShortHex),
                               shard.shard_id, TierNameOf(stored.tier()), stored.session_id()});
          list.json.push_back({{"key", key},
                               {"fingerprint", fingerprint},
                               {"shard", shard.shard_id},
                               {"tier", TierNameOf(stored.tier())},
                               {"session", stored.session_id()}});
        }
        return true;
      });
  if (!status.ok()) return status;
  return list;
}

absl::StatusOr<List> Sessions(const GetOptions& options, const ClusterReport& report) {
  // Blocks of a session by shard.
  std::map<std::string, std::map<std::string, uint64_t>> sessions;
  const absl::Status status =
      ForEachStored(options, report, [&](const ShardReport& shard, const auto& stored) {
        if (!stored.session_id().empty()) {
          sessions[stored.session_id()][shard.shard_id] += stored.keys().size() / kDigestBytes;
        }
        return true;
      });
  if (!status.ok()) return status;
  List list{.head = {"SESSION", "BLOCKS", "SHARDS"}, .rows = {}};
  for (const auto& [session, shards] : sessions) {
    if (list.rows.size() >= options.limit) {
      list.cut = true;
      break;
    }
    uint64_t most = 0;
    std::string where;
    for (const auto& [shard, blocks] : shards) {
      most = std::max(most, blocks);
      absl::StrAppend(&where, where.empty() ? "" : " ", shard, ":", blocks);
    }
    list.rows.push_back({session, absl::StrCat(most), where});
    list.json.push_back({{"session", session}, {"blocks", most}, {"shards", shards}});
  }
  return list;
}

absl::StatusOr<List> Ask(const GetOptions& options) {
  Waiting waiting("asking the shards");
  REPRISE_ASSIGN_OR_RETURN(const ClusterReport report, DescribeCluster(options.where));
  if (options.what == "specs") return Specs(report);
  if (options.what == "blocks") return Blocks(options, report);
  if (options.what == "sessions") return Sessions(options, report);
  return Shards(report);
}

ExitCode Get(const GetOptions& options) {
  const absl::StatusOr<List> list = Ask(options);
  if (!list.ok()) return Complain(list.status());
  if (options.common.json()) {
    PrintJson({{options.what, list->json}, {"complete", !list->cut}});
  } else {
    std::printf("%s", Table(list->head, list->rows).c_str());
    if (list->cut) std::fprintf(stderr, "only the first %zu: --limit shows more\n", options.limit);
  }
  const bool filtered = !options.session.empty() || !options.fingerprint.empty();
  if (filtered && list->rows.empty()) {
    return Complain(
        Refusal(absl::StatusCode::kNotFound, "NOTHING_FOUND", "nothing is stored that fits"));
  }
  return ExitCode::kOk;
}

}  // namespace

Registered AddGet(CLI::App& app) {
  CLI::App* command = app.add_subcommand("get", "list shards, specs, blocks or sessions");
  auto options = std::make_shared<GetOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option("what", options->what, "shards, specs, blocks or sessions")
      ->required()
      ->check(CLI::IsMember({"shards", "specs", "blocks", "sessions"}));
  command->add_option("--session", options->session, "only this session's (blocks, sessions)");
  command->add_option("--fingerprint", options->fingerprint,
                      "only this spec's, by the start of its hex (blocks, sessions)");
  command->add_option("--limit", options->limit, "rows at most (blocks, sessions)")
      ->capture_default_str();
  return {command, [options] { return Get(*options); }};
}

}  // namespace reprise::cli
