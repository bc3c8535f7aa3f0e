#include "client/cli/command.h"

#include <cstdio>

#include "nlohmann/json.hpp"
#include "proto/types/refusal.h"

namespace reprise::cli {

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
      return ExitCode::kNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kUnreachable;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kRefused;
    default:
      return ExitCode::kFailed;
  }
}

ExitCode Complain(const absl::Status& status) {
  std::fprintf(stderr, "reprise: %s\n", std::string(status.message()).c_str());
  return ExitCodeOf(status);
}

void PrintJson(const nlohmann::ordered_json& json) {
  constexpr int kOneLine = -1;
  using Handler = nlohmann::ordered_json::error_handler_t;
  std::printf("%s\n", json.dump(kOneLine, ' ', /*ensure_ascii=*/false, Handler::replace).c_str());
}

void AddCommon(CLI::App& app, Common& common) {
  app.add_option("-o,--output", common.output, "text for people, json for programs")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

void AddTlsFiles(CLI::App& app, TlsOptions& tls) {
  app.add_option("--tls-ca", tls.ca_file,
                 "PEM file of the authorities that are believed; this and the next two: mTLS")
      ->envname("REPRISE_TLS_CA");
  app.add_option("--tls-cert", tls.certificate_file, "PEM file of your certificate")
      ->envname("REPRISE_TLS_CERT");
  app.add_option("--tls-key", tls.key_file, "PEM file of its private key")
      ->envname("REPRISE_TLS_KEY");
}

void AddWhere(CLI::App& app, Where& where) {
  app.add_option("--router", where.routers, "router as HOST:PORT; again for more")
      ->envname("REPRISE_ROUTER");
  app.add_option("--shard", where.shards,
                 "shard as HOST:PORT, instead of a router; again for more");
  app.add_option("--timeout", where.timeout_s, "seconds to wait for answers")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddTlsFiles(app, where.tls);
  app.add_option("--tls-server-id", where.tls.servers,
                 "SPIFFE id that servers have; again for more; default: their certificates name "
                 "the host")
      ->envname("REPRISE_TLS_SERVER_ID");
}

absl::Status CheckWhere(const Where& where) {
  if (where.routers.empty() && where.shards.empty()) {
    return Refusal(absl::StatusCode::kInvalidArgument, "NO_ADDRESS",
                   "no router was named: add --router HOST:PORT or set REPRISE_ROUTER (`reprise "
                   "up` prints it)");
  }
  return absl::OkStatus();
}

}  // namespace reprise::cli
