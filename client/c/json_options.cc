#include "client/c/json_options.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

using Json = nlohmann::json;
using Reader = std::function<absl::Status(const std::string& name, const Json& value)>;

absl::Status Misuse(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

absl::Status WrongType(const std::string& name, const Json& value, absl::string_view wanted) {
  return Misuse("JSON_TYPE", absl::StrCat(name, " is ", value.dump(), ": give ", wanted));
}

absl::Status ReadObject(absl::string_view text, const std::map<std::string, Reader>& members) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return Misuse("JSON_OBJECT", absl::StrCat("not a JSON object: ", text.substr(0, 80)));
  }
  for (const auto& [name, value] : json.items()) {
    const auto member = members.find(name);
    if (member == members.end()) {
      std::vector<std::string> names;
      for (const auto& [known, reader] : members) names.push_back(known);
      return Misuse("JSON_MEMBER",
                    absl::StrCat("there is no member \"", name, "\": did you mean \"",
                                 NearestWord(name, names), "\"?"));
    }
    REPRISE_RETURN_IF_ERROR(member->second(name, value));
  }
  return absl::OkStatus();
}

Reader Text(std::string& out) {
  return [&out](const std::string& name, const Json& value) {
    if (!value.is_string()) return WrongType(name, value, "a text");
    out = value.get<std::string>();
    return absl::OkStatus();
  };
}

template <typename Integer>
Reader Count(Integer& out) {
  return [&out](const std::string& name, const Json& value) {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return WrongType(name, value, "a whole number that is not negative");
    }
    out = static_cast<Integer>(value.get<uint64_t>());
    return absl::OkStatus();
  };
}

Reader Texts(std::vector<std::string>& out) {
  return [&out](const std::string& name, const Json& value) {
    const Json list = value.is_array() ? value : Json::array({value});
    for (const Json& one : list) {
      if (!one.is_string()) return WrongType(name, value, "a text or a list of texts");
      out.push_back(one.get<std::string>());
    }
    return absl::OkStatus();
  };
}

constexpr uint32_t kNoGpu = std::numeric_limits<uint32_t>::max();

absl::StatusOr<std::vector<LaneKind>> LanesFromNames(const std::vector<std::string>& names) {
  static const auto* const kKnown = new std::vector<std::string>{"stream", "tcp", "view", "nccl"};
  static const auto* const kKinds = new std::vector<LaneKind>{LaneKind::kStream, LaneKind::kTcp,
                                                              LaneKind::kView, LaneKind::kNccl};
  std::vector<LaneKind> lanes;
  for (const std::string& name : names) {
    const auto at = std::find(kKnown->begin(), kKnown->end(), name);
    if (at == kKnown->end()) {
      return Misuse("OPTION_LANES", absl::StrCat("lanes has \"", name, "\": did you mean \"",
                                                 NearestWord(name, *kKnown), "\"?"));
    }
    lanes.push_back((*kKinds)[at - kKnown->begin()]);
  }
  return lanes;
}

}  // namespace

std::string NearestWord(absl::string_view word, std::span<const std::string> known) {
  REPRISE_CHECK(!known.empty());
  const auto distance = [word](const std::string& other) {
    std::vector<size_t> row(other.size() + 1);
    for (size_t i = 0; i < row.size(); ++i) row[i] = i;
    for (size_t i = 0; i < word.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i + 1);
      for (size_t j = 0; j < other.size(); ++j) {
        const size_t replaced = diagonal + (word[i] == other[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
      }
    }
    return row.back();
  };
  return *std::min_element(
      known.begin(), known.end(),
      [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); });
}

absl::StatusOr<ClientOptions> ClientOptionsFromJson(absl::string_view text) {
  ClientOptions options;
  uint32_t timeout_ms = static_cast<uint32_t>(absl::ToInt64Milliseconds(options.timeout));
  std::vector<std::string> lanes;
  uint32_t gpu = kNoGpu;
  REPRISE_RETURN_IF_ERROR(ReadObject(text, {{"router", Texts(options.routers)},
                                            {"shards", Texts(options.shards)},
                                            {"name", Text(options.name)},
                                            {"timeout_ms", Count(timeout_ms)},
                                            {"threads", Count(options.threads)},
                                            {"lanes", Texts(lanes)},
                                            {"gpu", Count(gpu)},
                                            {"nccl_library", Text(options.nccl_library)},
                                            {"tls_ca", Text(options.tls.ca_file)},
                                            {"tls_cert", Text(options.tls.certificate_file)},
                                            {"tls_key", Text(options.tls.key_file)},
                                            {"tls_server_id", Texts(options.tls.servers)}}));
  if (timeout_ms == 0)
    return Misuse("OPTION_TIMEOUT", "timeout_ms is 0: give a time in milliseconds");
  options.timeout = absl::Milliseconds(timeout_ms);
  if (gpu != kNoGpu) options.gpu = static_cast<int>(gpu);
  if (!lanes.empty()) {
    REPRISE_ASSIGN_OR_RETURN(options.lanes, LanesFromNames(lanes));
  }
  return options;
}

absl::StatusOr<CacheSpec> CacheSpecFromJson(absl::string_view text) {
  CacheSpec spec;
  const Reader attention = [&](const std::string& name, const Json& value) {
    if (value == "gqa") {
      spec.attention = AttentionKind::kGqa;
    } else if (value == "mla") {
      spec.attention = AttentionKind::kMla;
    } else {
      return WrongType(name, value, "\"gqa\" (multi-head and grouped-query attention) or \"mla\"");
    }
    return absl::OkStatus();
  };
  const Reader dtype = [&](const std::string& name, const Json& value) {
    if (!value.is_string()) return WrongType(name, value, "a name, e.g. \"bf16\"");
    REPRISE_ASSIGN_OR_RETURN(spec.dtype, DataTypeFromName(value.get<std::string>()));
    return absl::OkStatus();
  };
  REPRISE_RETURN_IF_ERROR(
      ReadObject(text, {{"model", Text(spec.model)},
                        {"revision", Text(spec.revision)},
                        {"scope", Text(spec.scope)},
                        {"attention", attention},
                        {"dtype", dtype},
                        {"layers", Count(spec.layers)},
                        {"kv_heads", Count(spec.kv_heads)},
                        {"head_dim", Count(spec.head_dim)},
                        {"block_tokens", Count(spec.block_tokens)},
                        {"window_tokens", Count(spec.window_tokens)},
                        {"tensor_parallel_size", Count(spec.tensor_parallel_size)},
                        {"tensor_parallel_rank", Count(spec.tensor_parallel_rank)},
                        {"pipeline_parallel_size", Count(spec.pipeline_parallel_size)},
                        {"pipeline_parallel_rank", Count(spec.pipeline_parallel_rank)},
                        {"rope_digest", Text(spec.rope_digest)},
                        {"lora_digest", Text(spec.lora_digest)},
                        {"codec", Text(spec.codec)},
                        {"engine_layout", Text(spec.engine_layout)},
                        {"key_scheme", Text(spec.key_scheme)}}));
  return spec;
}

}  // namespace reprise::client
