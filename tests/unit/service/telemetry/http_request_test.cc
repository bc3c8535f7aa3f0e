#include "service/telemetry/http_request.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"

namespace reprise::telemetry {
namespace {

using State = ParsedRequest::State;

TEST(HttpRequest, AGetIsUnderstoodWhateverItsHeaders) {
  const ParsedRequest parsed =
      ParseRequest("GET /metrics?name[]=x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\nrest");
  EXPECT_EQ(parsed.state, State::kComplete);
  EXPECT_EQ(parsed.request.method, "GET");
  EXPECT_EQ(parsed.request.path, "/metrics");
}

TEST(HttpRequest, EveryBeginningOfARequestIsIncomplete) {
  const std::string whole = "HEAD / HTTP/1.0\r\nHost: a\r\n\r\n";
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(ParseRequest(whole.substr(0, bytes)).state, State::kIncomplete) << bytes;
  }
  EXPECT_EQ(ParseRequest(whole).state, State::kComplete);
}

TEST(HttpRequest, WhatIsNoHttpIsMalformed) {
  for (const char* line :
       {"", "GET", "GET /", "get / HTTP/1.1", "GET x HTTP/1.1", "GET / HTTP/2.0", "GET  / HTTP/1.1",
        "GET /\x01 HTTP/1.1", "GET / HTTP/1.1 more", "PRI * HTTP/2.0", "GET http://a/ HTTP/1.1"}) {
    EXPECT_EQ(ParseRequest(absl::StrCat(line, "\r\n\r\n")).state, State::kMalformed) << line;
  }
}

TEST(HttpRequest, TheBoundIsOnAllOfIt) {
  const std::string begin = "GET / HTTP/1.1\r\nA: ";
  const std::string end = "\r\n\r\n";
  const size_t most = limits::kStatusRequestBytesMax - begin.size() - end.size();
  EXPECT_EQ(ParseRequest(begin + std::string(most, 'x') + end).state, State::kComplete);
  EXPECT_EQ(ParseRequest(begin + std::string(most + 1, 'x') + end).state, State::kTooLarge);
  EXPECT_EQ(ParseRequest(std::string(limits::kStatusRequestBytesMax, '\n')).state,
            State::kTooLarge);
}

TEST(HttpRequest, AnAnswerSaysHowLongItIsAndHeadHasNoBody) {
  const HttpResponse response{.status = 503, .body = "draining\n"};
  const std::string whole = Encode(response, false);
  EXPECT_TRUE(absl::StartsWith(whole, "HTTP/1.1 503 Service Unavailable\r\n")) << whole;
  EXPECT_TRUE(absl::StrContains(whole, "\r\nContent-Length: 9\r\n"));
  EXPECT_TRUE(absl::StrContains(whole, "\r\nConnection: close\r\n"));
  EXPECT_TRUE(absl::EndsWith(whole, "\r\n\r\ndraining\n"));
  const std::string head = Encode(response, true);
  EXPECT_TRUE(absl::StrContains(head, "\r\nContent-Length: 9\r\n"));
  EXPECT_TRUE(absl::EndsWith(head, "\r\n\r\n"));
}

}  // namespace
}  // namespace reprise::telemetry
