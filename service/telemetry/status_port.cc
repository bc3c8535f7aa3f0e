#include "service/telemetry/status_port.h"

#include <utility>

#include "service/telemetry/listener_watch.h"
#include "service/telemetry/process_metrics.h"

namespace reprise::telemetry {

namespace {

Family CertificateExpiry(const std::function<absl::Time()>& expires) {
  const absl::Time when = expires ? expires() : absl::InfinitePast();
  return Gauge("reprise_tls_certificate_expiry_timestamp_seconds",
               "When the certificate ends, since the epoch; 0: plaintext, or it cannot be read.",
               when == absl::InfinitePast() ? 0.0 : static_cast<double>(absl::ToUnixSeconds(when)));
}

}  // namespace

StatusSource SourceOf(ServerStatus server) {
  StatusSource source;
  source.metrics = [server] {
    std::vector<Family> families = server.metrics();
    if (server.calls != nullptr) families.push_back(server.calls->ToFamily());
    families.push_back(CertificateExpiry(server.certificate_expires));
    for (Family& family : ProcessFamilies(ThisProcess(), server.component, server.version)) {
      families.push_back(std::move(family));
    }
    return families;
  };
  source.well = [ticks = server.ticks, listener = std::make_shared<ListenerWatch>(server.address)] {
    Probe probe = ticks->Look();
    return probe.empty() ? listener->Look() : probe;
  };
  source.ready = [draining = server.draining, unready = server.unready]() -> Probe {
    if (draining()) return "draining";
    return unready ? unready() : "";
  };
  source.page = std::move(server.page);
  return source;
}

absl::Status CheckStatusPort(const StatusPortOptions& options) {
  if (options.listen.empty()) return absl::OkStatus();
  return HttpServer::Check(options.listen, options.public_address);
}

absl::StatusOr<std::unique_ptr<HttpServer>> OpenStatusPort(const StatusPortOptions& options,
                                                           StatusSource source) {
  if (options.listen.empty()) return nullptr;
  return HttpServer::Start({.listen = options.listen,
                            .public_address = options.public_address,
                            .answer = [source = std::move(source)](const HttpRequest& request) {
                              return Answer(source, request);
                            }});
}

}  // namespace reprise::telemetry
