// What every process says of itself, under the names that Prometheus' own clients use.
//
// Thread safety: free functions; no shared state.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "service/telemetry/metric_family.h"

namespace reprise::telemetry {

// As the kernel tells; what it does not tell is 0.
struct ProcessUse {
  double start_time_seconds = 0;  // since the epoch
  double cpu_seconds = 0;         // user and system
  double resident_bytes = 0;      // blocks in host memory are among them
  double virtual_bytes = 0;
  double open_fds = 0;
  double max_fds = 0;
};
ProcessUse ThisProcess();

// Of the texts of /proc/PID/stat (from the process's state on) and of /proc/stat. The rest of the
// result is 0.
ProcessUse ParseProcess(absl::string_view pid_stat, absl::string_view stat, double ticks_per_second,
                        double page_bytes);

// process_* and reprise_build_info{version,component}.
std::vector<Family> ProcessFamilies(const ProcessUse& use, const std::string& component,
                                    const std::string& version);

}  // namespace reprise::telemetry
