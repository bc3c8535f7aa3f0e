#include "cluster/membership/etcd/member_record.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cluster/membership/members_file.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

absl::Status Bad(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, "MEMBER_RECORD", sentence);
}

}  // namespace

std::string ToRecord(const MemberRecord& record) {
  nlohmann::ordered_json json = {{"address", record.member.address},
                                 {"weight", record.member.weight}};
  if (record.leaving) json["leaving"] = true;
  // A text that is no UTF-8 is no reason to end.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<MemberRecord> ParseRecord(absl::string_view id, absl::string_view value) {
  if (value.size() > limits::kMemberRecordBytesMax) {
    return Bad(absl::StrCat("it has ", value.size(), " bytes, more than kMemberRecordBytesMax = ",
                            limits::kMemberRecordBytesMax));
  }
  const auto json = nlohmann::json::parse(value.begin(), value.end(), nullptr, false);
  if (!json.is_object()) return Bad("it is no JSON object like {\"address\": \"HOST:PORT\"}");
  MemberRecord record{.member = {.id = {std::string(id)}}};
  const auto address = json.find("address");
  if (address == json.end() || !address->is_string()) return Bad("it has no text \"address\"");
  record.member.address = address->get<std::string>();
  if (const auto weight = json.find("weight"); weight != json.end()) {
    if (!weight->is_number()) return Bad("its weight is no number");
    record.member.weight = weight->get<double>();
  }
  if (const auto leaving = json.find("leaving"); leaving != json.end()) {
    if (!leaving->is_boolean()) return Bad("its leaving is neither true nor false");
    record.leaving = leaving->get<bool>();
  }
  if (const absl::Status valid = ValidateMember(record.member); !valid.ok()) {
    return Bad(valid.message());
  }
  return record;
}

}  // namespace reprise::cluster
