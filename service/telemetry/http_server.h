// A small HTTP server for one machine's probes, scrapes and people: GET and HEAD of pages that are
// made on the spot, one answer per connection, in plaintext.
//
// One thread serves all connections without ever waiting for one, so a client that sends a byte a
// minute, or reads none, costs a descriptor until its time is over, and nothing else. It is our own
// because what a library would do here is not bounded: cpp-httplib 0.11 gives each connection a
// thread of a pool with an unbounded queue and begins its read timeout anew with every byte, so
// that as many slow clients as there are threads would keep the liveness probe from its answer,
// which restarts the process.
//
// Invariants: at most limits::kStatusConnectionsMax connections; one more closes the one that began
// first; a request that is not whole after limits::kStatusRequestTimeout, and an answer that is not
// taken after kStatusResponseTimeout, is closed.
//
// Thread safety: made and destroyed by one thread; `answer` is called on the server's own, one call
// at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/telemetry/http_request.h"

namespace reprise::telemetry {

struct HttpServerOptions {
  std::string listen;           // host:port; port 0: a free one
  bool public_address = false;  // listen on another address than loopback
  // GET and HEAD; what it returns for HEAD loses its body. REQUIRES: returns soon, since the next
  // client waits.
  std::function<HttpResponse(const HttpRequest&)> answer;
};

class HttpServer {
 public:
  // INVALID_ARGUMENT (reason STATUS_ADDRESS) for an address that is none, FAILED_PRECONDITION
  // (reason STATUS_NOT_LOOPBACK) for one that is not loopback without `public_address`, UNAVAILABLE
  // (reason STATUS_LISTEN) when it cannot be bound now.
  static absl::Status Check(const std::string& listen, bool public_address);

  // As Check.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options);
  virtual ~HttpServer() = default;  // closes all connections

  virtual const std::string& address() const = 0;  // host:port as bound
};

}  // namespace reprise::telemetry
