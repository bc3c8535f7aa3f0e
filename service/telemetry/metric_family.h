// What is scraped, as values: families of samples, and the text that Prometheus reads. Made anew
// for every scrape from snapshots, so that nothing on a hot path ever looks a label up.
//
// Invariants: the text is Prometheus' exposition format 0.0.4; a family is one block, its samples
// in the order in which they were added; whatever a label value holds comes back as it was.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace reprise::telemetry {

inline constexpr char kMetricsContentType[] = "text/plain; version=0.0.4; charset=utf-8";

// Name and value of each, in the order in which they are written.
using Labels = std::vector<std::pair<std::string, std::string>>;

enum class MetricType : uint8_t { kCounter, kGauge, kHistogram };

struct Sample {
  Labels labels;
  double value = 0;
};

// Observations in buckets, of one set of labels.
struct HistogramSample {
  Labels labels;
  std::span<const double> bounds;  // upper, ascending, without infinity; outlives this
  std::vector<uint64_t> counts;    // one per bound and one beyond: those of that bucket alone
  double sum = 0;
};

struct Family {
  std::string name;
  std::string help;  // one line
  MetricType type = MetricType::kGauge;
  std::vector<Sample> samples;              // of a counter or a gauge
  std::vector<HistogramSample> histograms;  // of a histogram

  Family& Add(double value, Labels labels = {}) {
    samples.push_back({std::move(labels), value});
    return *this;
  }
};

Family Counter(absl::string_view name, absl::string_view help);
Family Gauge(absl::string_view name, absl::string_view help);
// Of one sample without labels.
Family Counter(absl::string_view name, absl::string_view help, double value);
Family Gauge(absl::string_view name, absl::string_view help, double value);

// What /metrics answers.
std::string ToText(std::span<const Family> families);

}  // namespace reprise::telemetry
