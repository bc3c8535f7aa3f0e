#include "service/telemetry/metric_family.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace reprise::telemetry {
namespace {

// Beyond it a double does not tell one whole number from the next.
constexpr double kWholeNumbersMax = 9007199254740992.0;  // 2^53

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (std::trunc(value) == value && std::fabs(value) < kWholeNumbersMax) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  // The shortest text of the three that reads back as the same number.
  for (const int digits : {6, 15}) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    if (std::stod(text) == value) return text;
  }
  return absl::StrFormat("%.17g", value);
}

// A help text keeps its quotes, a label value does not.
std::string Escaped(absl::string_view text, bool quoted) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    if (c == '\\') {
      escaped += "\\\\";
    } else if (c == '\n') {
      escaped += "\\n";
    } else if (c == '"' && quoted) {
      escaped += "\\\"";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

void AppendLine(std::string& out, absl::string_view name, absl::string_view suffix,
                const Labels& labels, absl::string_view bound, absl::string_view value) {
  absl::StrAppend(&out, name, suffix);
  const char* before = "{";
  for (const auto& [label, text] : labels) {
    absl::StrAppend(&out, before, label, "=\"", Escaped(text, /*quoted=*/true), "\"");
    before = ",";
  }
  if (!bound.empty()) {
    absl::StrAppend(&out, before, "le=\"", bound, "\"");
    before = ",";
  }
  absl::StrAppend(&out, before[0] == ',' ? "} " : " ", value, "\n");
}

void AppendHistogram(std::string& out, const std::string& name, const HistogramSample& histogram) {
  uint64_t below = 0;  // a bucket counts all that are below its bound
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    below += histogram.counts[i];
    const std::string bound =
        i < histogram.bounds.size() ? Number(histogram.bounds[i]) : std::string("+Inf");
    AppendLine(out, name, "_bucket", histogram.labels, bound, absl::StrCat(below));
  }
  AppendLine(out, name, "_sum", histogram.labels, "", Number(histogram.sum));
  AppendLine(out, name, "_count", histogram.labels, "", absl::StrCat(below));
}

const char* TypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

Family Of(MetricType type, absl::string_view name, absl::string_view help) {
  return {.name = std::string(name), .help = std::string(help), .type = type};
}

}  // namespace

Family Counter(absl::string_view name, absl::string_view help) {
  return Of(MetricType::kCounter, name, help);
}

Family Gauge(absl::string_view name, absl::string_view help) {
  return Of(MetricType::kGauge, name, help);
}

Family Counter(absl::string_view name, absl::string_view help, double value) {
  return std::move(Counter(name, help).Add(value));
}

Family Gauge(absl::string_view name, absl::string_view help, double value) {
  return std::move(Gauge(name, help).Add(value));
}

std::string ToText(std::span<const Family> families) {
  std::string out;
  for (const Family& family : families) {
    absl::StrAppend(&out, "# HELP ", family.name, " ", Escaped(family.help, /*quoted=*/false),
                    "\n# TYPE ", family.name, " ", TypeName(family.type), "\n");
    for (const Sample& sample : family.samples) {
      AppendLine(out, family.name, "", sample.labels, "", Number(sample.value));
    }
    for (const HistogramSample& histogram : family.histograms) {
      AppendHistogram(out, family.name, histogram);
    }
  }
  return out;
}

}  // namespace reprise::telemetry
