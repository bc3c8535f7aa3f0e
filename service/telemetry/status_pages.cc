#include "service/telemetry/status_pages.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace reprise::telemetry {
namespace {

constexpr char kHead[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width\">"
    "<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 "
    "1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}"
    "th,td{text-align:left;padding:.2rem 1.5rem .2rem 0;border-bottom:1px solid #8884}"
    "td{font-variant-numeric:tabular-nums}@media(prefers-color-scheme:dark)"
    "{body{background:#111;color:#ddd}a{color:#8bf}}</style>";

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

void AppendTable(std::string& out, const StatusTable& table) {
  absl::StrAppend(&out, "<h2>", Escaped(table.title), "</h2>");
  if (table.rows.empty()) {
    out += "<p>none</p>";
    return;
  }
  out += "<table><tr>";
  for (const std::string& column : table.columns) {
    absl::StrAppend(&out, "<th>", Escaped(column), "</th>");
  }
  out += "</tr>";
  for (const std::vector<std::string>& row : table.rows) {
    out += "<tr>";
    for (const std::string& cell : row) absl::StrAppend(&out, "<td>", Escaped(cell), "</td>");
    out += "</tr>";
  }
  out += "</table>";
}

HttpResponse OfProbe(const Probe& probe) {
  if (probe.empty()) return {.body = "ok\n"};
  return {.status = 503, .body = absl::StrCat(probe, "\n")};
}

}  // namespace

std::string BytesText(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, bytes, kUnits[unit]);
}

std::string ToHtml(const StatusPage& page) {
  const std::string title = Escaped(page.title);
  std::string out =
      absl::StrCat(kHead, "<title>Reprise ", title, "</title></head><body><h1>Reprise ", title,
                   "</h1><p><a href=\"/metrics\">/metrics</a> "
                   "<a href=\"/livez\">/livez</a> <a href=\"/readyz\">/readyz</a></p>"
                   "<table>");
  for (const auto& [name, value] : page.facts) {
    absl::StrAppend(&out, "<tr><th>", Escaped(name), "</th><td>", Escaped(value), "</td></tr>");
  }
  out += "</table>";
  for (const StatusTable& table : page.tables) AppendTable(out, table);
  return out + "</body></html>\n";
}

HttpResponse Answer(const StatusSource& source, const HttpRequest& request) {
  if (request.path == "/metrics") {
    return {.content_type = kMetricsContentType, .body = ToText(source.metrics())};
  }
  if (request.path == "/livez") return OfProbe(source.well());
  if (request.path == "/readyz") return OfProbe(source.ready());
  if (request.path == "/") {
    return {.content_type = "text/html; charset=utf-8", .body = ToHtml(source.page())};
  }
  return {.status = 404, .body = "here are /, /metrics, /livez and /readyz\n"};
}

}  // namespace reprise::telemetry
