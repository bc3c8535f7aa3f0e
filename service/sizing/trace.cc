#include "service/sizing/trace.h"

#include <xxhash.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::sizing {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kNoParent = 0;

// Reads the lines of one file; what it refuses, it refuses by file and line.
class Reader {
 public:
  Reader(const std::string& path, const TraceOptions& options) : path_(path), options_(options) {
    trace_.name = path.substr(path.rfind('/') + 1);
  }

  absl::StatusOr<Trace> Read() {
    std::ifstream file(path_);
    if (!file) return Unreadable();
    std::vector<char> line(kTraceLineBytesMax + 1);
    while (file.getline(line.data(), static_cast<std::streamsize>(line.size()))) {
      ++line_;
      // The newline is counted; the last line may have none.
      const absl::string_view text(line.data(),
                                   static_cast<size_t>(file.gcount()) - (file.eof() ? 0 : 1));
      if (absl::StripAsciiWhitespace(text).empty()) continue;
      REPRISE_RETURN_IF_ERROR(Add(text));
    }
    if (file.bad()) return Unreadable();
    if (!file.eof()) {
      ++line_;
      return Bad(absl::StrCat("the line is longer than ", kTraceLineBytesMax, " bytes"));
    }
    if (!trace_.requests.empty()) return std::move(trace_);
    return Refusal(absl::StatusCode::kInvalidArgument, "TRACE_EMPTY",
                   absl::StrCat(path_, " has no request: write one JSON object a line"));
  }

 private:
  absl::Status Unreadable() const {
    return Refusal(absl::StatusCode::kNotFound, "TRACE_UNREADABLE",
                   absl::StrCat(path_, " cannot be read"));
  }

  absl::Status Bad(absl::string_view what) const {
    return Refusal(absl::StatusCode::kInvalidArgument, "TRACE_LINE",
                   absl::StrCat(path_, ":", line_, ": ", what));
  }

  absl::Status Add(absl::string_view text) {
    const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) return Bad("this is no JSON");
    if (!json.is_object()) return Bad("this is no JSON object");
    const bool by_hash = json.contains("hash_ids");
    if (by_hash == json.contains("token_ids")) {
      return Bad("a request has either hash_ids or token_ids, a list of whole numbers");
    }
    if (by_hash_.value_or(by_hash) != by_hash) {
      return Bad("this has other ids than the lines before: use hash_ids or token_ids throughout");
    }
    by_hash_ = by_hash;
    trace_.block_tokens = by_hash ? options_.trace_block_tokens : options_.block_tokens;
    Request request;
    REPRISE_ASSIGN_OR_RETURN(request.at, TimeOf(json));
    REPRISE_RETURN_IF_ERROR(by_hash ? AddHashIds(json.at("hash_ids"), request)
                                    : AddTokenIds(json.at("token_ids"), request));
    trace_.requests.push_back(std::move(request));
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Duration> TimeOf(const Json& json) const {
    const bool first = trace_.requests.empty();
    const absl::Duration before = first ? absl::ZeroDuration() : trace_.requests.back().at;
    const auto it = json.find("timestamp");
    if (it == json.end()) return first ? before : before + limits::kReuseApart;
    if (!it->is_number() || it->get<double>() < 0) {
      return Bad(absl::StrCat("timestamp is ", it->dump(), ": write milliseconds, 0 or more"));
    }
    return std::max(before, absl::Milliseconds(it->get<double>()));
  }

  // `ids`, each a whole number of at most `most`.
  absl::StatusOr<std::vector<uint64_t>> IdsOf(const Json& ids, absl::string_view name,
                                              uint64_t most) const {
    if (!ids.is_array()) return Bad(absl::StrCat(name, " is no list"));
    if (ids.size() > kTraceTokensMax) {
      return Bad(absl::StrCat(name, " has ", ids.size(), " numbers, at most ", kTraceTokensMax));
    }
    std::vector<uint64_t> values;
    values.reserve(ids.size());
    for (const Json& id : ids) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > most) {
        constexpr int kOneLine = -1;
        return Bad(absl::StrCat(
            name, "[", values.size(), "] is ",
            id.dump(kOneLine, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace),
            ": write whole numbers from 0 to ", most));
      }
      values.push_back(id.get<uint64_t>());
    }
    return values;
  }

  absl::Status AddHashIds(const Json& json, Request& request) {
    REPRISE_ASSIGN_OR_RETURN(const std::vector<uint64_t> ids,
                             IdsOf(json, "hash_ids", ~uint64_t{0}));
    request.prompt_tokens = ids.size() * options_.trace_block_tokens;
    request.blocks.reserve(ids.size());
    uint64_t parent = kNoParent;
    for (size_t i = 0; i < ids.size(); ++i) {
      const uint64_t key = KeyOfId(ids[i]);
      if (parents_.try_emplace(key, parent).first->second != parent) {
        return Bad(absl::StrCat("hash_ids[", i, "] is ", ids[i],
                                ", which followed another block before: an id has to stand for its "
                                "block and all before it"));
      }
      request.blocks.push_back(parent = key);
    }
    return absl::OkStatus();
  }

  absl::Status AddTokenIds(const Json& json, Request& request) {
    REPRISE_ASSIGN_OR_RETURN(const std::vector<uint64_t> tokens,
                             IdsOf(json, "token_ids", ~uint32_t{0}));
    request.prompt_tokens = tokens.size();
    uint64_t parent = kNoParent;
    for (size_t i = options_.block_tokens; i <= tokens.size(); i += options_.block_tokens) {
      parent = XXH3_64bits_withSeed(&tokens[i - options_.block_tokens],
                                    options_.block_tokens * sizeof(uint64_t), parent);
      request.blocks.push_back(parent);
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const TraceOptions options_;
  Trace trace_;
  size_t line_ = 0;
  std::optional<bool> by_hash_;                      // or by token; of the lines so far
  absl::flat_hash_map<uint64_t, uint64_t> parents_;  // of blocks named by hash_ids
};

}  // namespace

absl::StatusOr<Trace> ReadTrace(const std::string& path, const TraceOptions& options) {
  return Reader(path, options).Read();
}

uint64_t KeyOfId(uint64_t id) {
  return XXH3_64bits(&id, sizeof(id));
}

}  // namespace reprise::sizing
