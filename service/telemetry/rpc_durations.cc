#include "service/telemetry/rpc_durations.h"

#include <algorithm>

namespace reprise::telemetry {
namespace {

// As every gRPC document writes them; by code.
constexpr const char* kCodeNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

size_t BucketOf(double seconds) {
  return static_cast<size_t>(std::lower_bound(kRpcBounds.begin(), kRpcBounds.end(), seconds) -
                             kRpcBounds.begin());
}

}  // namespace

RpcDurations::RpcDurations(std::span<const std::string> methods)
    : methods_(methods.begin(), methods.end()) {
  for (size_t row = 0; row < methods_.size(); ++row) rows_of_.emplace(methods_[row], row);
  methods_.push_back("other");
  rows_ = std::make_unique<Row[]>(methods_.size());
}

void RpcDurations::Ended(absl::string_view method, absl::StatusCode code, absl::Duration took) {
  static_assert(std::size(kCodeNames) == kCodes);
  const auto it = rows_of_.find(method);
  const size_t row = it == rows_of_.end() ? methods_.size() - 1 : it->second;
  const auto column = static_cast<size_t>(code);
  Cell& cell =
      rows_[row][column < kCodes ? column : static_cast<size_t>(absl::StatusCode::kUnknown)];
  took = std::max(took, absl::ZeroDuration());
  cell.counts[BucketOf(absl::ToDoubleSeconds(took))].fetch_add(1, std::memory_order_relaxed);
  cell.sum_ns.fetch_add(static_cast<uint64_t>(absl::ToInt64Nanoseconds(took)),
                        std::memory_order_relaxed);
}

Family RpcDurations::ToFamily() const {
  Family family{.name = "reprise_rpc_server_duration_seconds",
                .help =
                    "Calls by method and status code, from the first byte to the status; a "
                    "stream as a whole.",
                .type = MetricType::kHistogram};
  for (size_t row = 0; row < methods_.size(); ++row) {
    for (size_t code = 0; code < kCodes; ++code) {
      const Cell& cell = rows_[row][code];
      HistogramSample sample{.labels = {{"method", methods_[row]}, {"code", kCodeNames[code]}},
                             .bounds = kRpcBounds};
      uint64_t all = 0;
      for (const auto& count : cell.counts) {
        sample.counts.push_back(count.load(std::memory_order_relaxed));
        all += sample.counts.back();
      }
      if (all == 0 && code != 0) continue;
      sample.sum = static_cast<double>(cell.sum_ns.load(std::memory_order_relaxed)) / 1e9;
      family.histograms.push_back(std::move(sample));
    }
  }
  return family;
}

}  // namespace reprise::telemetry
