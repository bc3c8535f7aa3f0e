// What the status port serves: /metrics, /livez, /readyz, and / for people. Pure.
//
// Invariants: no page shows a key, a token, a tenant, a session or a byte of a block.
//
// Thread safety: pure functions.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "service/telemetry/http_request.h"
#include "service/telemetry/metric_family.h"

namespace reprise::telemetry {

// One table of the page for people.
struct StatusTable {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  // each as long as columns
};

struct StatusPage {
  std::string title;                                       // "shard shard-0"
  std::vector<std::pair<std::string, std::string>> facts;  // "version", "0.1.0"
  std::vector<StatusTable> tables;
};

// How the process answers a probe. Empty: yes; else why not, in a line.
using Probe = std::string;

struct StatusSource {
  std::function<std::vector<Family>()> metrics;
  std::function<Probe()> well;   // is the process well? Else it is to be restarted
  std::function<Probe()> ready;  // is it to be sent calls?
  std::function<StatusPage()> page;
};

// The answer to a GET of `request`; 404 names the paths that there are.
HttpResponse Answer(const StatusSource& source, const HttpRequest& request);

// A whole HTML document without scripts; whatever the texts hold is shown as text.
std::string ToHtml(const StatusPage& page);

// "1.5 GiB".
std::string BytesText(double bytes);

}  // namespace reprise::telemetry
