#include "service/telemetry/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace reprise::telemetry {
namespace {

// Fields of /proc/PID/stat, counted from 1 as proc(5) does.
constexpr size_t kState = 3;
constexpr size_t kUserTicks = 14;
constexpr size_t kSystemTicks = 15;
constexpr size_t kStartTicks = 22;
constexpr size_t kVirtualBytes = 23;
constexpr size_t kResidentPages = 24;

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

double BootTime(absl::string_view stat) {
  for (const absl::string_view line : absl::StrSplit(stat, '\n')) {
    double seconds = 0;
    const std::pair<absl::string_view, absl::string_view> words = absl::StrSplit(line, ' ');
    if (words.first == "btime" && absl::SimpleAtod(words.second, &seconds)) return seconds;
  }
  return 0;
}

double OpenFds() {
  DIR* const folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  double entries = 0;
  while (::readdir(folder) != nullptr) ++entries;
  ::closedir(folder);
  return entries - 3;  // ".", "..", and the descriptor that this reads by
}

}  // namespace

ProcessUse ParseProcess(absl::string_view pid_stat, absl::string_view stat, double ticks_per_second,
                        double page_bytes) {
  ProcessUse use;
  // The name of the program is in parentheses and may hold any of them.
  const size_t name_end = pid_stat.rfind(')');
  if (name_end == absl::string_view::npos) return use;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(pid_stat.substr(name_end + 1), ' ', absl::SkipEmpty());
  const auto field = [&](size_t number) {
    double value = 0;
    const bool there =
        number - kState < fields.size() && absl::SimpleAtod(fields[number - kState], &value);
    return there ? value : 0.0;
  };
  use.cpu_seconds = (field(kUserTicks) + field(kSystemTicks)) / ticks_per_second;
  use.start_time_seconds = BootTime(stat) + field(kStartTicks) / ticks_per_second;
  use.virtual_bytes = field(kVirtualBytes);
  use.resident_bytes = field(kResidentPages) * page_bytes;
  return use;
}

ProcessUse ThisProcess() {
  ProcessUse use = ParseProcess(ReadAll("/proc/self/stat"), ReadAll("/proc/stat"),
                                static_cast<double>(::sysconf(_SC_CLK_TCK)),
                                static_cast<double>(::sysconf(_SC_PAGESIZE)));
  use.open_fds = OpenFds();
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) use.max_fds = static_cast<double>(files.rlim_cur);
  return use;
}

std::vector<Family> ProcessFamilies(const ProcessUse& use, const std::string& component,
                                    const std::string& version) {
  return {
      Gauge("reprise_build_info", "1; the labels say what runs.")
          .Add(1, {{"component", component}, {"version", version}}),
      Gauge("process_start_time_seconds", "When the process began, since the epoch.",
            use.start_time_seconds),
      Counter("process_cpu_seconds_total", "User and system time.", use.cpu_seconds),
      Gauge("process_resident_memory_bytes", "Resident memory, blocks in host memory included.",
            use.resident_bytes),
      Gauge("process_virtual_memory_bytes", "Address space.", use.virtual_bytes),
      Gauge("process_open_fds", "Open file descriptors.", use.open_fds),
      Gauge("process_max_fds", "File descriptors that may be open.", use.max_fds),
  };
}

}  // namespace reprise::telemetry
