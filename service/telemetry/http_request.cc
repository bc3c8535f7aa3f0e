#include "service/telemetry/http_request.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/types/limits.h"

namespace reprise::telemetry {
namespace {

constexpr absl::string_view kEnd = "\r\n\r\n";

const char* ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isupper);
}

bool IsTarget(absl::string_view text) {
  return absl::StartsWith(text, "/") && std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
}

}  // namespace

ParsedRequest ParseRequest(absl::string_view bytes) {
  using State = ParsedRequest::State;
  const size_t end = bytes.substr(0, limits::kStatusRequestBytesMax).find(kEnd);
  if (end == absl::string_view::npos) {
    const bool full = bytes.size() >= limits::kStatusRequestBytesMax;
    return {.state = full ? State::kTooLarge : State::kIncomplete};
  }
  const absl::string_view line = bytes.substr(0, bytes.find("\r\n"));
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || !IsToken(words[0]) || !IsTarget(words[1]) ||
      !absl::StartsWith(words[2], "HTTP/1.")) {
    return {.state = State::kMalformed};
  }
  const absl::string_view path = words[1].substr(0, words[1].find('?'));
  return {.state = State::kComplete,
          .request = {.method = std::string(words[0]), .path = std::string(path)}};
}

std::string Encode(const HttpResponse& response, bool head) {
  std::string out = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", ReasonOf(response.status),
      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(),
      "\r\nConnection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
      response.status == 405 ? "Allow: GET, HEAD\r\n" : "", "\r\n");
  if (!head) out += response.body;
  return out;
}

}  // namespace reprise::telemetry
