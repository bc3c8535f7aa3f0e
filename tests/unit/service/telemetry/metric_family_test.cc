#include "service/telemetry/metric_family.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

namespace reprise::telemetry {
namespace {

std::string TextOf(const Family& family) {
  return ToText(std::span(&family, 1));
}

TEST(MetricFamily, ACounterIsThreeLines) {
  EXPECT_EQ(TextOf(Counter("reprise_things_total", "Things.", 3)),
            "# HELP reprise_things_total Things.\n"
            "# TYPE reprise_things_total counter\n"
            "reprise_things_total 3\n");
}

TEST(MetricFamily, LabelsKeepTheirOrder) {
  Family family = Gauge("g", "G.");
  family.Add(1, {{"lane", "view"}, {"direction", "read"}}).Add(2, {{"lane", "nccl"}});
  EXPECT_EQ(TextOf(family),
            "# HELP g G.\n# TYPE g gauge\n"
            "g{lane=\"view\",direction=\"read\"} 1\n"
            "g{lane=\"nccl\"} 2\n");
}

TEST(MetricFamily, WhatALabelHoldsIsEscapedAndNothingElseIs) {
  Family family = Gauge("g", "back\\slash and \"quote\"\nline");
  family.Add(1, {{"l", "back\\slash \"quote\"\nline {brace}, =é"}});
  EXPECT_EQ(TextOf(family),
            "# HELP g back\\\\slash and \"quote\"\\nline\n# TYPE g gauge\n"
            "g{l=\"back\\\\slash \\\"quote\\\"\\nline {brace}, =é\"} 1\n");
}

TEST(MetricFamily, WholeNumbersAreWholeAndOthersReadBackAsTheyWere) {
  Family family = Gauge("g", "G.");
  const double values[] = {0,       68719476736, 9007199254740991, 0.1, 1e-7, 1e300,
                           1.0 / 3, -2.5,        1764243000.13};
  for (const double value : values) family.Add(value);
  const std::string text = TextOf(family);
  size_t at = text.find("\ng ");
  for (const double value : values) {
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(std::stod(text.substr(at + 3)), value);
    at = text.find("\ng ", at + 1);
  }
  EXPECT_NE(text.find("g 68719476736\n"), std::string::npos);
  EXPECT_NE(text.find("g 0.1\n"), std::string::npos);
}

TEST(MetricFamily, InfinityIsWrittenAsPrometheusReadsIt) {
  Family family = Gauge("g", "G.");
  family.Add(std::numeric_limits<double>::infinity());
  EXPECT_NE(TextOf(family).find("g +Inf\n"), std::string::npos);
}

TEST(MetricFamily, BucketsAddUpToTheCount) {
  static constexpr std::array<double, 2> kBounds = {0.5, 2};
  Family family{.name = "h", .help = "H.", .type = MetricType::kHistogram};
  family.histograms.push_back(
      {.labels = {{"method", "a"}}, .bounds = kBounds, .counts = {3, 0, 4}, .sum = 20.5});
  EXPECT_EQ(TextOf(family),
            "# HELP h H.\n# TYPE h histogram\n"
            "h_bucket{method=\"a\",le=\"0.5\"} 3\n"
            "h_bucket{method=\"a\",le=\"2\"} 3\n"
            "h_bucket{method=\"a\",le=\"+Inf\"} 7\n"
            "h_sum{method=\"a\"} 20.5\n"
            "h_count{method=\"a\"} 7\n");
}

}  // namespace
}  // namespace reprise::telemetry
