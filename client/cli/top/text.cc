#include "client/cli/top/text.h"

#include <algorithm>
#include <cctype>
#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/terminal.h"

namespace reprise::cli {
namespace {

constexpr size_t kNameColumnsMax = 24;
constexpr int kBarCells = 5;
constexpr double kNearlyFull = 0.9;

constexpr char kRed[] = "\x1b[31m";
constexpr char kYellow[] = "\x1b[33m";
constexpr char kGreen[] = "\x1b[32m";
constexpr char kBold[] = "\x1b[1m";
constexpr char kPlain[] = "\x1b[0m";

// What a terminal shows in one column each, which is ASCII. The rest, which may move the cursor, is
// '?'.
std::string Printable(absl::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

// `text` is Printable.
std::string Clipped(const std::string& text, size_t columns) {
  if (text.size() <= columns) return text;
  return columns == 0 ? "" : absl::StrCat(text.substr(0, columns - 1), "…");
}

// A word and what it costs to show it in colour.
struct Cell {
  std::string text;
  size_t columns = 0;
  const char* colour = "";
};

Cell Plain(std::string text, const char* colour = "") {
  const size_t columns = text.size();
  return {std::move(text), columns, colour};
}

std::string Painted(const Cell& cell, const TopStyle& style) {
  if (!style.colours || *cell.colour == '\0') return cell.text;
  return absl::StrCat(cell.colour, cell.text, kPlain);
}

// "0", "1.5", "12345", "123k": of events a second, and of things.
std::string ShortCount(double count) {
  if (count == 0) return "0";
  if (count < 9.95) return absl::StrFormat("%.1f", count);
  if (count < 99'999.5) return absl::StrFormat("%.0f", count);
  if (count < 99'999'500.0) return absl::StrFormat("%.0fk", count / 1e3);
  return absl::StrFormat("%.0fM", count / 1e6);
}

// "0", "512", "1.5K", "12M": of 1024s.
std::string ShortBytes(double bytes) {
  constexpr const char* kUnits[] = {"", "K", "M", "G", "T", "P"};
  size_t unit = 0;
  while (bytes >= 1023.5 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat(unit > 0 && bytes < 9.95 ? "%.1f%s" : "%.0f%s", bytes, kUnits[unit]);
}

std::string Percent(double share) {
  return absl::StrFormat("%.0f%%", 100 * share);
}

struct Column {
  std::string head;
  int importance = 0;      // the highest goes first when there is no room; 0 stays
  size_t columns_min = 0;  // of what it usually shows, so that the others do not jump about
  std::function<Cell(const TopRow&)> cell;
  bool left = false;  // aligned so
};

// What ShortCount and ShortBytes make of most numbers.
constexpr size_t kNumberColumns = 5;
constexpr size_t kStateColumns = 9;  // "restarted"
constexpr size_t kShareColumns = 4;  // "100%"

Cell NameCell(const TopRow& row) {
  const std::string name = Printable(row.name());
  return {Clipped(name, kNameColumnsMax), std::min(name.size(), kNameColumnsMax)};
}

Cell StateCell(const TopRow& row) {
  if (row.state.empty()) return Plain("");
  const bool noted = row.answered && row.state == "alive" && !row.note.empty();
  const std::string text = Printable(noted ? row.note : row.state);
  if (row.state == "silent" || row.state == "dead") return Plain(text, kRed);
  return Plain(text, row.state == "alive" && row.note != "restarted" ? kGreen : kYellow);
}

Cell FillCell(const TopTier& tier, bool bars) {
  if (tier.lost) return Plain("lost", kRed);
  if (tier.capacity_bytes == 0) return Plain("-");
  const double share = std::min(
      1.0, static_cast<double>(tier.used_bytes) / static_cast<double>(tier.capacity_bytes));
  Cell cell = Plain(absl::StrFormat("%4s", Percent(share)));
  cell.colour = share > kNearlyFull ? kYellow : kGreen;
  if (!bars) return cell;
  std::string bar;
  const int full = static_cast<int>(share * kBarCells + 0.5);
  for (int i = 0; i < kBarCells; ++i) bar += i < full ? "█" : "░";
  cell.text = absl::StrCat(bar, cell.text);
  cell.columns += kBarCells;
  return cell;
}

Column RateColumn(std::string head, int importance, Rate rate, const char* colour = "") {
  const bool bytes = rate >= Rate::kInBytes && rate <= Rate::kOutStreamBytes;
  return {std::move(head), importance, kNumberColumns, [rate, bytes, colour](const TopRow& row) {
            if (!row.rates.has_value()) return Plain("-");
            const double value = row.rates->PerSecond(rate);
            return Plain(bytes ? ShortBytes(value) : ShortCount(value), value > 0 ? colour : "");
          }};
}

void AddTierColumns(const TopView& view, const TopStyle& style, std::vector<Column>& columns) {
  for (const auto& [tier, ignored] : view.total.tiers) {
    const v1::Tier wanted = tier;
    std::string name = TierNameOf(tier);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    const auto of = [wanted](const TopRow& row) {
      const auto it = row.tiers.find(wanted);
      return it == row.tiers.end() ? TopTier{} : it->second;
    };
    columns.push_back({name, 1, kShareColumns, [of, bars = style.bars](const TopRow& row) {
                         return FillCell(of(row), bars);
                       }});
    columns.push_back({"BYTES", 7, 2 * kNumberColumns, [of](const TopRow& row) {
                         const TopTier use = of(row);
                         if (use.capacity_bytes == 0) return Plain("-");
                         return Plain(
                             absl::StrCat(ShortBytes(static_cast<double>(use.used_bytes)), "/",
                                          ShortBytes(static_cast<double>(use.capacity_bytes))));
                       }});
  }
}

Column CountColumn(std::string head, int importance, uint64_t TopRow::*count) {
  return {std::move(head), importance, kNumberColumns,
          [count](const TopRow& row) { return Plain(absl::StrCat(row.*count)); }};
}

// Only lanes that some shard offers.
void AddLaneColumns(const TopView& view, std::vector<Column>& columns) {
  struct Lane {
    v1::LaneKind kind;
    const char* name;
    Rate in, out;
  };
  constexpr Lane kLanes[] = {
      {v1::LANE_KIND_VIEW, "VIEW", Rate::kInViewBytes, Rate::kOutViewBytes},
      {v1::LANE_KIND_NCCL, "NCCL", Rate::kInNcclBytes, Rate::kOutNcclBytes},
      {v1::LANE_KIND_TCP, "TCP", Rate::kInTcpBytes, Rate::kOutTcpBytes},
      {v1::LANE_KIND_STREAM, "STREAM", Rate::kInStreamBytes, Rate::kOutStreamBytes}};
  const auto offered = [&view](v1::LaneKind kind) {
    const auto& lanes = view.total.lanes;
    return std::find(lanes.begin(), lanes.end(), kind) != lanes.end();
  };
  for (const Lane& lane : kLanes) {
    if (!offered(lane.kind)) continue;
    columns.push_back(RateColumn(absl::StrCat(lane.name, " IN/S"), 11, lane.in));
    columns.push_back(RateColumn(absl::StrCat(lane.name, " OUT/S"), 10, lane.out));
  }
}

std::vector<Column> ColumnsOf(const TopView& view, const TopStyle& style) {
  std::vector<Column> columns;
  columns.push_back({"SHARD", 0, 0, NameCell, /*left=*/true});
  columns.push_back({"STATE", 0, kStateColumns, StateCell, /*left=*/true});
  AddTierColumns(view, style, columns);
  columns.push_back(CountColumn("BLOCKS", 6, &TopRow::blocks));
  columns.push_back(CountColumn("LEASES", 8, &TopRow::leases));
  columns.push_back(CountColumn("CLIENTS", 9, &TopRow::attachments));
  columns.push_back(RateColumn("ASKED/S", 3, Rate::kAskedBlocks));
  columns.push_back(RateColumn("HIT/S", 9, Rate::kHitBlocks));
  columns.push_back({"HIT", 2, kShareColumns, [](const TopRow& row) {
                       const auto share = row.rates ? row.rates->HitShare() : std::nullopt;
                       return Plain(share.has_value() ? Percent(*share) : "-");
                     }});
  columns.push_back(RateColumn("IN/S", 3, Rate::kInBytes));
  columns.push_back(RateColumn("OUT/S", 2, Rate::kOutBytes));
  AddLaneColumns(view, columns);
  columns.push_back(RateColumn("EVICT/S", 4, Rate::kEvictedBlocks));
  if (view.total.tiers.size() > 1)
    columns.push_back(RateColumn("DEMOTE/S", 8, Rate::kDemotedBlocks));
  columns.push_back(RateColumn("REFUSE/S", 5, Rate::kRefusals, kYellow));
  columns.push_back(RateColumn("ERR/S", 4, Rate::kErrors, kRed));
  return columns;
}

// Columns with their cells, as wide as the widest one.
struct Grid {
  struct Strip {
    Column column;
    std::vector<Cell> cells;  // of each row, then of all
    size_t columns = 0;
  };
  std::vector<Strip> strips;

  size_t Width() const {
    size_t width = 0;
    for (const Strip& strip : strips) width += strip.columns + 2;
    return width - 2;
  }
};

Grid GridOf(const TopView& view, const TopStyle& style) {
  Grid grid;
  for (Column& column : ColumnsOf(view, style)) {
    Grid::Strip strip{.column = std::move(column)};
    strip.columns = std::max(strip.column.head.size(), strip.column.columns_min);
    const auto add = [&strip](const TopRow& row, bool named) {
      strip.cells.push_back(row.answered || named ? strip.column.cell(row) : Plain(""));
      strip.columns = std::max(strip.columns, strip.cells.back().columns);
    };
    for (const TopRow& row : view.rows) add(row, grid.strips.size() < 2);
    add(view.total, grid.strips.size() < 2);
    grid.strips.push_back(std::move(strip));
  }
  while (style.width > 0 && grid.Width() > style.width) {
    const auto least =
        std::max_element(grid.strips.begin(), grid.strips.end(), [](const auto& a, const auto& b) {
          return a.column.importance <= b.column.importance;  // of equals the last one
        });
    if (least->column.importance == 0) break;
    grid.strips.erase(least);
  }
  return grid;
}

// A line of the cells that `cell` picks. The names alone may still be too wide for the window.
std::string LineOf(const Grid& grid, const TopStyle& style, size_t strips,
                   const std::function<Cell(const Grid::Strip&)>& cell) {
  std::string line;
  size_t used = 0;
  for (size_t i = 0; i < strips; ++i) {
    const Grid::Strip& strip = grid.strips[i];
    const size_t gap = i == 0 ? 0 : 2;
    if (style.width > 0 && used + gap + strip.columns > style.width) break;
    used += gap + strip.columns;
    const Cell one = cell(strip);
    const std::string pad(strip.columns - one.columns, ' ');
    line.append(gap, ' ');
    absl::StrAppend(&line, strip.column.left ? "" : pad, Painted(one, style),
                    strip.column.left ? pad : "");
  }
  return line;
}

// gRPC's words for a connection that cannot be made end in what happened.
std::string ReasonOf(const std::string& message) {
  const size_t last = message.rfind(": ");
  const bool long_winded = absl::StartsWith(message, "failed to connect");
  return Printable(long_winded && last != std::string::npos ? message.substr(last + 2) : message);
}

std::string SilentLine(const Grid& grid, const TopStyle& style, size_t at, const TopRow& row) {
  std::string line = LineOf(grid, style, 2, [at](const auto& strip) { return strip.cells[at]; });
  const size_t used = grid.strips[0].columns + 2 + grid.strips[1].columns + 2;
  const std::string reason = ReasonOf(row.note);
  if (style.width == 0) return absl::StrCat(line, "  ", reason);
  if (used >= style.width) return line;
  return absl::StrCat(line, "  ", Clipped(reason, style.width - used));
}

// Pieces beside each other, on as many lines as the width makes of them.
void AppendPieces(const std::vector<std::string>& pieces, const TopStyle& style, const char* colour,
                  std::vector<std::string>& lines) {
  std::string line;
  const auto end_line = [&] {
    lines.push_back(Painted({line, line.size(), colour}, style));
    line.clear();
  };
  for (const std::string& piece : pieces) {
    if (style.width > 0 && !line.empty() && line.size() + 2 + piece.size() > style.width)
      end_line();
    absl::StrAppend(&line, line.empty() ? "" : "  ",
                    style.width > 0 ? Clipped(piece, style.width) : piece);
  }
  end_line();
}

std::string Plural(uint64_t count, absl::string_view word) {
  return absl::StrCat(count, " ", word, count == 1 ? "" : "s");
}

std::string ServedOf(const TopView& view) {
  const Rates& rates = *view.total.rates;
  const auto share = rates.HitShare();
  return absl::StrCat("asked ", Plural(rates.Counted(Rate::kAskedBlocks), "block"), ", hit ",
                      rates.Counted(Rate::kHitBlocks),
                      share.has_value() ? absl::StrCat(" (", Percent(*share), ")") : "", " = ",
                      Plural(rates.Counted(Rate::kHitTokens), "token"));
}

std::vector<std::string> HeaderOf(const TopView& view, const TopStyle& style) {
  std::vector<std::string> lines;
  std::vector<std::string> pieces;
  std::string states;
  for (const auto& [state, count] : view.states)
    absl::StrAppend(&states, states.empty() ? ": " : ", ", count, " ", Printable(state));
  if (!view.router.empty()) {
    pieces = {absl::StrCat("router ", Printable(view.router)), absl::StrCat("epoch ", view.epoch)};
  }
  pieces.push_back(absl::StrCat(Plural(view.rows.size(), "shard"), states));
  if (!view.router.empty()) pieces.push_back(Plural(view.sessions, "session"));
  AppendPieces(pieces, style, "", lines);
  if (!view.router_status.ok()) {
    AppendPieces({absl::StrCat("the router has not answered for ", HumanDuration(view.router_age)),
                  ReasonOf(std::string(view.router_status.message())),
                  "epoch, sessions and the list of shards are as old"},
                 style, kRed, lines);
  }
  if (!view.members_trouble.empty()) {
    AppendPieces({absl::StrCat("the members have not been read for ",
                               HumanDuration(view.members_trouble_age)),
                  Printable(view.members_trouble)},
                 style, kYellow, lines);
  }
  pieces = {absl::FormatTime("%H:%M:%S", view.wall, absl::LocalTimeZone())};
  if (view.total.rates.has_value()) {
    pieces.push_back(absl::StrFormat("last %.1f s", absl::ToDoubleSeconds(view.elapsed)));
    pieces.push_back(ServedOf(view));
  } else if (view.elapsed == absl::ZeroDuration()) {
    pieces.push_back("first look: rates come with the next");
  }
  AppendPieces(pieces, style, "", lines);
  return lines;
}

}  // namespace

std::string TopText(const TopView& view, const TopStyle& style) {
  std::vector<std::string> lines = HeaderOf(view, style);
  const Grid grid = GridOf(view, style);
  const size_t all = grid.strips.size();
  lines.push_back(LineOf(grid, style, all,
                         [](const Grid::Strip& strip) { return Plain(strip.column.head, kBold); }));
  const size_t room = style.height > lines.size() + 1 ? style.height - lines.size() - 1 : 0;
  size_t shown = view.rows.size();
  if (style.height > 0 && shown > room) shown = room > 0 ? room - 1 : 0;
  for (size_t at = 0; at < shown; ++at) {
    const TopRow& row = view.rows[at];
    lines.push_back(
        row.answered ? LineOf(grid, style, all, [at](const auto& strip) { return strip.cells[at]; })
                     : SilentLine(grid, style, at, row));
  }
  if (shown < view.rows.size())
    lines.push_back(absl::StrCat("... ", view.rows.size() - shown, " more"));
  lines.push_back(LineOf(grid, style, all, [](const auto& strip) { return strip.cells.back(); }));
  if (style.height > 0 && lines.size() > style.height) lines.resize(style.height);
  std::string text;
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  return text;
}

}  // namespace reprise::cli
