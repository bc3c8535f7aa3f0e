// What tests ask of families of metrics.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "service/telemetry/metric_family.h"

namespace reprise::testing {

// The sample with exactly these labels; a failed test when there is none.
inline double ValueOf(const std::vector<telemetry::Family>& families, const std::string& name,
                      const telemetry::Labels& labels = {}) {
  for (const telemetry::Family& family : families) {
    if (family.name != name) continue;
    for (const telemetry::Sample& sample : family.samples) {
      if (sample.labels == labels) return sample.value;
    }
  }
  ADD_FAILURE() << name << " is not there";
  return -1;
}

}  // namespace reprise::testing
