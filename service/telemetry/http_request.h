// What the status port understands of HTTP/1.x: a request line and headers, no body. Pure.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace reprise::telemetry {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // without query
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// What has come of a request so far.
struct ParsedRequest {
  enum class State : uint8_t { kIncomplete, kComplete, kMalformed, kTooLarge };
  State state = State::kIncomplete;
  HttpRequest request;  // of kComplete
};

// `bytes` is all that came from the connection's begin. kTooLarge beyond
// limits::kStatusRequestBytesMax without an end; what comes after the headers is ignored.
ParsedRequest ParseRequest(absl::string_view bytes);

// Status line, headers and body, for a connection that is closed after it; no body for HEAD.
std::string Encode(const HttpResponse& response, bool head);

}  // namespace reprise::telemetry
