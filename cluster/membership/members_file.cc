#include "cluster/membership/members_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

absl::Status Bad(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, "MEMBERS_FILE", sentence);
}

std::string At(const YAML::Node& node) {
  return absl::StrCat("line ", node.Mark().line + 1, ": ");
}

size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

template <size_t N>
absl::Status CheckKeys(const YAML::Node& map, const std::array<absl::string_view, N>& valid) {
  for (const auto& entry : map) {
    const std::string key = entry.first.Scalar().substr(0, limits::kNameBytesMax);
    if (std::find(valid.begin(), valid.end(), absl::string_view(key)) != valid.end()) continue;
    const auto nearest = std::min_element(valid.begin(), valid.end(), [&](auto a, auto b) {
      return EditDistance(key, a) < EditDistance(key, b);
    });
    return Bad(absl::StrCat(At(entry.first), "unknown key \"", key, "\": did you mean \"", *nearest,
                            "\"?"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Text(const YAML::Node& map, const char* key) {
  const YAML::Node value = map[key];
  if (!value.IsDefined()) {
    return Bad(absl::StrCat(At(map), "a shard without \"", key, "\": give it one"));
  }
  if (!value.IsScalar() || value.Scalar().empty()) {
    return Bad(absl::StrCat(At(value), key, " is not a text: write ", key, ": VALUE"));
  }
  return value.Scalar();
}

absl::StatusOr<Member> ParseMember(const YAML::Node& node) {
  static constexpr std::array<absl::string_view, 3> kKeys = {"id", "address", "weight"};
  if (!node.IsMap()) {
    return Bad(
        absl::StrCat(At(node), "a shard is not a map: write {id: NAME, address: HOST:PORT}"));
  }
  REPRISE_RETURN_IF_ERROR(CheckKeys(node, kKeys));
  Member member;
  REPRISE_ASSIGN_OR_RETURN(member.id.name, Text(node, "id"));
  REPRISE_ASSIGN_OR_RETURN(member.address, Text(node, "address"));
  if (const YAML::Node weight = node["weight"]; weight.IsDefined()) {
    if (!weight.IsScalar() || !absl::SimpleAtod(weight.Scalar(), &member.weight)) {
      return Bad(absl::StrCat(At(weight), "weight is not a number: write weight: 1.0"));
    }
  }
  if (const absl::Status valid = ValidateMember(member); !valid.ok()) {
    return Bad(absl::StrCat(At(node), valid.message()));
  }
  return member;
}

absl::StatusOr<std::vector<Member>> ParseDocument(const YAML::Node& document) {
  static constexpr std::array<absl::string_view, 1> kKeys = {"shards"};
  std::vector<Member> members;
  if (document.IsNull()) return members;
  if (!document.IsMap()) {
    return Bad(absl::StrCat(At(document), "the file is not a map: start it with \"shards:\""));
  }
  REPRISE_RETURN_IF_ERROR(CheckKeys(document, kKeys));
  const YAML::Node shards = document["shards"];
  if (!shards.IsDefined() || shards.IsNull()) return members;
  if (!shards.IsSequence()) {
    return Bad(absl::StrCat(At(shards), "shards is not a list: write \"- id: NAME\" lines"));
  }
  if (shards.size() > limits::kShardsMax) {
    return Bad(absl::StrCat("shards has ", shards.size(), " entries, more than kShardsMax = ",
                            limits::kShardsMax, ": run a second cluster"));
  }
  for (const YAML::Node& node : shards) {
    REPRISE_ASSIGN_OR_RETURN(Member member, ParseMember(node));
    for (const Member& other : members) {
      if (other.id == member.id) {
        return Bad(absl::StrCat(At(node), "id \"", member.id.name,
                                "\" is given twice: each shard needs its own"));
      }
    }
    members.push_back(std::move(member));
  }
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.id < b.id; });
  return members;
}

}  // namespace

absl::Status ValidateMember(const Member& member) {
  const std::string& id = member.id.name;
  const bool good_id = !id.empty() && id.size() <= limits::kNameBytesMax &&
                       std::all_of(id.begin(), id.end(), [](unsigned char c) {
                         return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                       });
  if (!good_id) {
    return Bad(absl::StrCat("id \"", absl::CEscape(id.substr(0, limits::kNameBytesMax)),
                            "\" is not 1 to ", limits::kNameBytesMax,
                            " letters, digits, '-', '_' or '.'"));
  }
  const size_t colon = member.address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 ||
      member.address.size() > limits::kNameBytesMax * 2 ||
      !std::all_of(member.address.begin(), member.address.end(), absl::ascii_isgraph) ||
      !absl::SimpleAtoi(member.address.substr(colon + 1), &port) || port == 0 || port > 65'535) {
    return Bad(absl::StrCat("address \"",
                            absl::CEscape(member.address.substr(0, limits::kNameBytesMax)),
                            "\" of \"", id, "\" is not HOST:PORT with a port from 1 to 65535"));
  }
  if (!(member.weight > 0) || !(member.weight <= limits::kShardWeightMax)) {
    return Bad(absl::StrCat("weight ", member.weight, " of \"", id, "\" is not in (0, ",
                            limits::kShardWeightMax, "]: leave it out for 1"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Member>> ParseMembersFile(absl::string_view text) {
  try {
    return ParseDocument(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& e) {
    return Bad(absl::StrCat("not YAML: ", e.what()));
  }
}

}  // namespace reprise::cluster
