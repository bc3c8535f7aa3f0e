#include "service/telemetry/status_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reprise::telemetry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

StatusSource Source(Probe well, Probe ready) {
  return {.metrics = [] { return std::vector<Family>{Gauge("g", "G.", 1)}; },
          .well = [well] { return well; },
          .ready = [ready] { return ready; },
          .page = [] { return StatusPage{.title = "shard s"}; }};
}

TEST(StatusPages, AProbeThatSaysWhyNotIs503) {
  const StatusSource draining = Source("", "draining");
  EXPECT_EQ(Answer(draining, {"GET", "/livez"}).status, 200);
  EXPECT_EQ(Answer(draining, {"GET", "/readyz"}).status, 503);
  EXPECT_EQ(Answer(draining, {"GET", "/readyz"}).body, "draining\n");
  EXPECT_EQ(Answer(Source("stuck", ""), {"GET", "/livez"}).status, 503);
  EXPECT_EQ(Answer(Source("stuck", ""), {"GET", "/readyz"}).status, 200);
}

TEST(StatusPages, MetricsAreOfTheTypeThatPrometheusAsksFor) {
  const HttpResponse metrics = Answer(Source("", ""), {"GET", "/metrics"});
  EXPECT_EQ(metrics.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(metrics.body, HasSubstr("\ng 1\n"));
}

TEST(StatusPages, AnotherPathIsToldWhichThereAre) {
  for (const char* path : {"/metrics/", "/x", "//", "/../metrics"}) {
    const HttpResponse response = Answer(Source("", ""), {"GET", path});
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_THAT(response.body, HasSubstr("/readyz"));
  }
}

TEST(StatusPages, WhatATextHoldsIsShownAsText) {
  const std::string html =
      ToHtml({.title = "<script>alert(1)</script>",
              .facts = {{"a&b", "\"<i>\""}},
              .tables = {{.title = "T", .columns = {"<c>"}, .rows = {{"<td onload=x>"}}}}});
  EXPECT_THAT(html, Not(HasSubstr("<script>")));
  EXPECT_THAT(html, Not(HasSubstr("<i>")));
  EXPECT_THAT(html, Not(HasSubstr("<c>")));
  EXPECT_THAT(html, HasSubstr("&lt;td onload=x&gt;"));
  EXPECT_THAT(html, HasSubstr("a&amp;b"));
}

TEST(StatusPages, SizesAreInUnitsOfTheirOwn) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1536), "1.5 KiB");
  EXPECT_EQ(BytesText(64.0 * (1 << 30)), "64.0 GiB");
}

}  // namespace
}  // namespace reprise::telemetry
