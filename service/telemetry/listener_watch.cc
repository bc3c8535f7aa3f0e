#include "service/telemetry/listener_watch.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/types/limits.h"

namespace reprise::telemetry {
namespace {

// Fields of a line of /proc/net/tcp, as proc(5) has them: number, local address, remote address,
// state, tx_queue:rx_queue. Of a listener rx_queue is how many connections wait.
constexpr size_t kLocal = 1;
constexpr size_t kState = 3;
constexpr size_t kQueues = 4;
constexpr absl::string_view kListening = "0A";

std::optional<uint64_t> HexAfterColon(absl::string_view field) {
  const size_t colon = field.rfind(':');
  uint64_t value = 0;
  if (colon == absl::string_view::npos || !absl::SimpleHexAtoi(field.substr(colon + 1), &value)) {
    return std::nullopt;
  }
  return value;
}

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

std::optional<uint64_t> ParseBacklog(absl::string_view table, uint16_t port) {
  std::optional<uint64_t> waiting;
  for (const absl::string_view line : absl::StrSplit(table, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (fields.size() <= kQueues || fields[kState] != kListening) continue;
    if (HexAfterColon(fields[kLocal]) != std::optional<uint64_t>(port)) continue;
    waiting = waiting.value_or(0) + HexAfterColon(fields[kQueues]).value_or(0);
  }
  return waiting;
}

ListenerWatch::ListenerWatch(const std::string& address, const Clock& clock)
    : port_(static_cast<uint16_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str()))),
      clock_(clock) {}

Probe ListenerWatch::Look() {
  uint64_t waiting = 0;
  for (const char* table : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    waiting += ParseBacklog(ReadAll(table), port_).value_or(0);
  }
  if (waiting == 0) {
    waiting_since_.reset();
    return {};
  }
  const absl::Time now = clock_.Now();
  if (!waiting_since_.has_value()) waiting_since_ = now;
  if (now - *waiting_since_ < limits::kLivenessSilenceMax) return {};
  return absl::StrCat("port ", port_, " takes in no connection: ", waiting, " have waited for ",
                      absl::FormatDuration(now - *waiting_since_));
}

}  // namespace reprise::telemetry
