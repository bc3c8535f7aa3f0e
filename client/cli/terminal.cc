#include "client/cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::cli {
namespace {

constexpr int kBarCells = 10;
constexpr absl::Duration kQuiet = absl::Seconds(1);
constexpr absl::Duration kRedraw = absl::Milliseconds(200);

// Characters as a terminal counts them: UTF-8 continuation bytes and colour codes are nothing.
size_t Width(const std::string& text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) {
      ++width;
    }
  }
  return width;
}

}  // namespace

bool StdoutIsTerminal() {
  return isatty(STDOUT_FILENO) == 1;
}

bool UseColour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return StdoutIsTerminal() && (no_colour == nullptr || *no_colour == '\0');
}

std::string HumanBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text, absl::string_view option) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(digits)));
  uint64_t value = 0;
  int shift = -1;
  if (unit.empty() || unit == "b") shift = 0;
  if (unit == "kib" || unit == "k") shift = 10;
  if (unit == "mib" || unit == "m") shift = 20;
  if (unit == "gib" || unit == "g") shift = 30;
  if (unit == "tib" || unit == "t") shift = 40;
  if (shift < 0 || !absl::SimpleAtoi(text.substr(0, digits), &value) ||
      value > (~uint64_t{0} >> shift)) {
    return Refusal(absl::StatusCode::kInvalidArgument, "SIZE",
                   absl::StrCat(option, " is \"", text, "\": write a size as 256MiB or 8GiB"));
  }
  return value << shift;
}

std::string HumanDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  if (seconds < 60) return absl::StrCat(seconds, " s");
  if (seconds < 3600) return absl::StrCat(seconds / 60, " min ", seconds % 60, " s");
  if (seconds < 86400) return absl::StrCat(seconds / 3600, " h ", seconds % 3600 / 60, " min");
  return absl::StrCat(seconds / 86400, " d ", seconds % 86400 / 3600, " h");
}

std::string Bar(uint64_t used, uint64_t capacity) {
  const double share =
      capacity == 0 ? 0 : std::min(1.0, static_cast<double>(used) / static_cast<double>(capacity));
  const std::string percent = absl::StrFormat("%3.0f%%", share * 100);
  if (!StdoutIsTerminal()) return percent;
  const int full = static_cast<int>(share * kBarCells + 0.5);
  std::string bar;
  for (int i = 0; i < kBarCells; ++i) bar += i < full ? "█" : "░";
  if (UseColour()) {
    constexpr double kFull = 0.9;
    bar = absl::StrCat(share > kFull ? "\x1b[33m" : "\x1b[32m", bar, "\x1b[0m");
  }
  return absl::StrCat(bar, " ", percent);
}

std::string Table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::string& cell : head) widths.push_back(Width(cell));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string table;
  const auto add = [&](const std::vector<std::string>& row, bool bold) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - Width(row[i]) + 2, ' ');
    }
    absl::StrAppend(&table, bold ? "\x1b[1m" : "", line, bold ? "\x1b[0m" : "", "\n");
  };
  add(head, UseColour());
  for (const auto& row : rows) add(row, false);
  return table;
}

Progress::Progress(std::string what) : what_(std::move(what)), started_(absl::Now()) {}

Progress::~Progress() {
  if (visible_) std::fputs("\r\x1b[K", stderr);
}

void Progress::Tick(absl::string_view detail) {
  const absl::Time now = absl::Now();
  if (isatty(STDERR_FILENO) != 1 || now - started_ < kQuiet || now - drawn_ < kRedraw) return;
  drawn_ = now;
  visible_ = true;
  const std::string seconds = absl::StrFormat("%.0f s", absl::ToDoubleSeconds(now - started_));
  std::fprintf(stderr, "\r\x1b[K%s %s (%s)", what_.c_str(), std::string(detail).c_str(),
               seconds.c_str());
}

Waiting::Waiting(std::string what) {
  if (isatty(STDERR_FILENO) != 1) return;
  ticker_ = std::thread([this, what = std::move(what)] {
    Progress progress(what);
    while (!over_.WaitForNotificationWithTimeout(kRedraw)) progress.Tick();
  });
}

Waiting::~Waiting() {
  if (!ticker_.joinable()) return;
  over_.Notify();
  ticker_.join();
}

}  // namespace reprise::cli
