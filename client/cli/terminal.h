// What a person sees: tables, bars, sizes, progress. Colour and motion only on a terminal, and
// never with NO_COLOR.
//
// Thread safety: free functions without shared state; a Progress belongs to one thread.
#pragma once

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace reprise::cli {

bool StdoutIsTerminal();
bool UseColour();  // of stdout

// "1.5 GiB"
std::string HumanBytes(uint64_t bytes);
// "256MiB", "8GiB", "1024" (bytes). INVALID_ARGUMENT naming `option`.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text, absl::string_view option);
// "3 d 4 h", "12 s"
std::string HumanDuration(absl::Duration duration);

// "██████░░░░ 62%" on a terminal, "62%" elsewhere.
std::string Bar(uint64_t used, uint64_t capacity);

// Columns as wide as their widest cell. Bars count as what they show.
std::string Table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows);

// Says what is going on, on stderr, once it takes more than a second; in one line that it wipes at
// the end.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // Called now and then; draws when it is time to.
  void Tick(absl::string_view detail = "");

 private:
  const std::string what_;
  const absl::Time started_;
  absl::Time drawn_;
  bool visible_ = false;
};

// The same for calls that block: ticks by itself, in a thread of its own, as long as it lives.
class Waiting {
 public:
  explicit Waiting(std::string what);
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  absl::Notification over_;
  std::thread ticker_;  // none when stderr is no terminal
};

}  // namespace reprise::cli
