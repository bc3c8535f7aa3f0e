// `reprise top`: the cluster as it works, again and again, in place on a terminal.
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/command.h"
#include "client/cli/terminal.h"
#include "client/cli/top/json.h"
#include "client/cli/top/sampler.h"
#include "client/cli/top/text.h"
#include "client/cli/top/view.h"
#include "nlohmann/json.hpp"
#include "proto/types/clock.h"

namespace reprise::cli {
namespace {

constexpr double kIntervalSecondsMin = 0.1;
constexpr double kIntervalSecondsMax = 3600;
constexpr absl::Duration kPatienceMin = absl::Seconds(1);
constexpr size_t kColumnsUsual = 80;

constexpr char kLegend[] =
    "The header: the router, the epoch of its list of shards, shards by state, sessions that it\n"
    "knows; then, of the last interval, the blocks asked for, how many of them were hit, and the\n"
    "tokens of those. A prompt that is looked up at two shards counts at both.\n"
    "Each shard, and the total of those that answer:\n"
    "  STATE      alive, draining, syncing or dead as the router says; silent: no answer, and "
    "why;\n"
    "             new, gone: since the last look; restarted: it began to count anew, so that this\n"
    "             interval has no rates.\n"
    "  HBM, DRAM, NVME and BYTES   how full each tier is: the share, and used/capacity.\n"
    "  BLOCKS     stored now.\n"
    "  LEASES     rights to read some blocks, now.\n"
    "  CLIENTS    attached now, other shards included.\n"
    "  ASKED/S    blocks that Acquire was asked for, a second.\n"
    "  HIT/S, HIT   of them, those that were stored: a second, and their share.\n"
    "  IN/S, OUT/S  bytes written to the shard and read from it, a second, by all lanes.\n"
    "  VIEW, NCCL, TCP, STREAM IN/S and OUT/S   the same by each lane that is offered.\n"
    "  EVICT/S    blocks dropped for room, a second.\n"
    "  DEMOTE/S   blocks moved to a slower tier, a second.\n"
    "  REFUSE/S   calls answered with no, a second (no space, a quota, overload, wrong "
    "arguments).\n"
    "  ERR/S      blocks lost or found wrong, and failures between shards, a second.\n"
    "Sizes are of 1024: K, M, G, T. \"-\": not known yet. Where the window is narrow, the columns\n"
    "that matter least are left out: -o json has all of it, an object for each interval.\n"
    "Ctrl-C ends.";

struct TopOptions {
  Common common;
  Where where;
  double interval_s = 2;
  uint64_t count = 0;  // 0: until it is ended
  bool once = false;
  std::string sort = "name";

  absl::Duration interval() const { return absl::Seconds(interval_s); }
  // Nobody holds up the next look, unless there is none.
  absl::Duration patience() const {
    const absl::Duration timeout = absl::Seconds(where.timeout_s);
    return once ? timeout : std::min(timeout, std::max(interval(), kPatienceMin));
  }
  TopOrder order() const {
    if (sort == "memory") return TopOrder::kMemory;
    if (sort == "hits") return TopOrder::kHits;
    return sort == "bytes" ? TopOrder::kBytes : TopOrder::kName;
  }
};

// What the person at the terminal does, blocked for good and asked for where it suits.
class Signals {
 public:
  enum class Event { kNone, kStop, kResized, kSuspend };

  Signals() {
    sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP})
      sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, nullptr);
  }

  // kNone: none came within `timeout`.
  Event Next(absl::Duration timeout) {
    const timespec wait = absl::ToTimespec(std::max(timeout, absl::ZeroDuration()));
    const int signal = sigtimedwait(&set_, nullptr, &wait);
    if (signal < 0) return Event::kNone;
    if (signal == SIGWINCH) return Event::kResized;
    return signal == SIGTSTP ? Event::kSuspend : Event::kStop;
  }

  // Asked during a look. Whatever is not the end waits until the look is over.
  bool Stopped() {
    sigset_t pending;
    sigpending(&pending);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT})
      if (sigismember(&pending, signal) == 1) return true;
    return false;
  }

 private:
  sigset_t set_;
};

// The terminal's other screen, as long as it is entered: what stood on the first one comes back.
class Screen {
 public:
  ~Screen() { Leave(); }

  void Draw(const std::string& text) {
    std::string out = entered_ ? "" : "\x1b[?1049h\x1b[?25l";
    entered_ = true;
    out += "\x1b[H";
    // A line that is as wide as the window leaves the cursor on its last letter: erase first, in
    // the last line all that is below too.
    std::vector<absl::string_view> lines = absl::StrSplit(absl::StripSuffix(text, "\n"), '\n');
    for (size_t i = 0; i < lines.size(); ++i) {
      absl::StrAppend(&out, i == 0 ? "" : "\r\n", i + 1 < lines.size() ? "\x1b[K" : "\x1b[J",
                      lines[i]);
    }
    Put(out);
  }

  void Leave() {
    if (!entered_) return;
    entered_ = false;
    Put("\x1b[?25h\x1b[?1049l");
  }

 private:
  static void Put(const std::string& out) {
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
  }

  bool entered_ = false;
};

class Top {
 public:
  explicit Top(const TopOptions& options) : options_(options) {}

  ExitCode Run() {
    absl::StatusOr<TopSampler> sampler = TopSampler::Create(options_.where);
    if (!sampler.ok()) return Complain(sampler.status());
    const absl::Time started = MonotonicClock().Now();
    absl::StatusOr<TopSample> first = FirstLook(*sampler);
    if (absl::IsCancelled(first.status())) return ExitCode::kOk;
    if (!first.ok()) return Complain(first.status());
    TopSample baseline = *std::move(first);
    if (in_place_) Show(MakeTopView(nullptr, baseline, options_.order()));
    absl::Time next = started;
    for (uint64_t shown = 0; options_.count == 0 || shown < options_.count; ++shown) {
      // After a look that took longer, or a suspended hour, there is nothing to catch up with.
      next = std::max(next + options_.interval(), MonotonicClock().Now());
      if (!AwaitUntil(next)) break;
      absl::StatusOr<TopSample> now =
          sampler->Look(options_.patience(), [this] { return signals_.Stopped(); });
      if (!now.ok()) break;
      Show(MakeTopView(&baseline, *now, options_.order()));
      if (std::ferror(stdout) != 0) return ExitCode::kFailed;
      baseline = Baseline(baseline, *std::move(now));
    }
    return End();
  }

 private:
  // What is not there now may never have been: a wrong address, most likely.
  absl::StatusOr<TopSample> FirstLook(TopSampler& sampler) {
    Waiting waiting("asking the shards");
    absl::StatusOr<TopSample> first =
        sampler.Look(options_.patience(), [this] { return signals_.Stopped(); });
    if (!first.ok() || !first->router.empty()) return first;
    absl::Status last;
    for (const TopShard& shard : first->shards) {
      if (shard.report.status.ok()) return first;
      last = absl::Status(
          shard.report.status.code(),
          absl::StrCat("shard ", shard.report.address, ": ", shard.report.status.message()));
    }
    return last;
  }

  // False: a signal to end came.
  bool AwaitUntil(absl::Time time) {
    while (true) {
      switch (signals_.Next(time - MonotonicClock().Now())) {
        case Signals::Event::kNone:
          if (MonotonicClock().Now() >= time) return true;
          break;  // stopped and continued from outside
        case Signals::Event::kStop:
          return false;
        case Signals::Event::kSuspend:
          screen_.Leave();
          raise(SIGSTOP);  // until SIGCONT
          [[fallthrough]];
        case Signals::Event::kResized:
          if (in_place_ && view_.has_value()) Show(*view_);
      }
    }
  }

  void Show(TopView view) {
    if (options_.common.json()) {
      PrintJson(TopJson(view));
    } else if (in_place_) {
      screen_.Draw(TopText(view, StyleNow(/*whole=*/false)));
    } else {
      std::printf("%s%s", view_.has_value() ? "\n" : "",
                  TopText(view, StyleNow(/*whole=*/true)).c_str());
    }
    std::fflush(stdout);
    view_ = std::move(view);
  }

  // What was seen last stays on the screen that one works on.
  ExitCode End() {
    if (in_place_ && view_.has_value()) {
      screen_.Leave();
      std::printf("%s", TopText(*view_, StyleNow(/*whole=*/true)).c_str());
    }
    return ExitCode::kOk;
  }

  // `whole`: lines that do not fit the window's height may scroll away.
  static TopStyle StyleNow(bool whole) {
    TopStyle style{.bars = StdoutIsTerminal(), .colours = UseColour()};
    winsize window = {};
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0;
    const char* const columns = std::getenv("COLUMNS");
    if (known && window.ws_col > 0) {
      style.width = window.ws_col;
    } else if (columns == nullptr || !absl::SimpleAtoi(columns, &style.width)) {
      style.width = StdoutIsTerminal() ? kColumnsUsual : 0;
    }
    if (!whole && known) style.height = window.ws_row;
    return style;
  }

  static bool CanMoveCursor() {
    const char* const term = std::getenv("TERM");
    return StdoutIsTerminal() && term != nullptr && std::strcmp(term, "dumb") != 0;
  }

  const TopOptions options_;
  const bool in_place_ = !options_.common.json() && !options_.once && CanMoveCursor();
  Signals signals_;
  Screen screen_;
  std::optional<TopView> view_;  // that is shown
};

}  // namespace

Registered AddTop(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("top", "the shards at work: rates, hits, memory, again and again");
  auto options = std::make_shared<TopOptions>();
  AddCommon(*command, options->common);
  AddWhere(*command, options->where);
  command->add_option("--interval", options->interval_s, "seconds between two looks")
      ->check(CLI::Range(kIntervalSecondsMin, kIntervalSecondsMax))
      ->capture_default_str();
  CLI::Option* const count =
      command->add_option("--count", options->count, "intervals to show; default: until Ctrl-C")
          ->check(CLI::PositiveNumber);
  command->add_flag("--once", options->once, "one interval, as one table, and nothing in place")
      ->excludes(count);
  command
      ->add_option("--sort", options->sort,
                   "shards by name, memory used, hits a second or bytes a second in and out")
      ->check(CLI::IsMember({"name", "memory", "hits", "bytes"}))
      ->capture_default_str();
  command->footer(kLegend);
  return {command, [options] {
            if (options->once) options->count = 1;
            return Top(*options).Run();
          }};
}

}  // namespace reprise::cli
