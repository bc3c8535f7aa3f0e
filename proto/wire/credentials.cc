#include "proto/wire/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::wire {
namespace {

using grpc::experimental::CertificateProviderInterface;
using grpc::experimental::TlsCustomVerificationCheckRequest;

// A server is who its SPIFFE id says, at whatever address it is found: pods have no names that a
// certificate could carry.
class ServerIdVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit ServerIdVerifier(std::vector<std::string> servers) : servers_(std::move(servers)) {}

  bool Verify(TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* sync_status) override {
    const std::vector<grpc::string_ref> names = request->uri_names();
    const bool known = names.size() == 1 &&
                       std::find(servers_.begin(), servers_.end(),
                                 std::string(names[0].data(), names[0].size())) != servers_.end();
    *sync_status =
        known ? grpc::Status::OK
              : grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                             absl::StrCat("the server is none of ", absl::StrJoin(servers_, ", ")));
    return true;
  }
  void Cancel(TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::vector<std::string> servers_;
};

void Present(grpc::experimental::TlsCredentialsOptions& tls,
             const std::shared_ptr<CertificateProviderInterface>& files) {
  tls.set_certificate_provider(files);
  tls.watch_root_certs();
  tls.watch_identity_key_cert_pairs();
}

std::shared_ptr<grpc::ChannelCredentials> ForChannels(
    const std::shared_ptr<CertificateProviderInterface>& files,
    const std::vector<std::string>& servers) {
  grpc::experimental::TlsChannelCredentialsOptions tls;
  Present(tls, files);
  if (!servers.empty()) {
    tls.set_certificate_verifier(
        grpc::experimental::ExternalCertificateVerifier::Create<ServerIdVerifier>(servers));
    tls.set_check_call_host(false);
  }
  return grpc::experimental::TlsCredentials(tls);
}

std::shared_ptr<grpc::ServerCredentials> ForServers(
    const std::shared_ptr<CertificateProviderInterface>& files) {
  grpc::experimental::TlsServerCredentialsOptions tls(files);
  Present(tls, files);
  tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(tls);
}

}  // namespace

Credentials::Credentials(const TlsOptions& options, Identity identity)
    : options_(options), identity_(std::move(identity)) {
  const auto files = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.key_file, options.certificate_file, options.ca_file,
      static_cast<unsigned int>(absl::ToInt64Seconds(limits::kTlsReloadInterval)));
  channel_ = ForChannels(files, options.servers);
  server_ = ForServers(files);
}

absl::Time Credentials::Expires() const {
  const absl::StatusOr<Identity> now = ReadIdentity(options_);
  return now.ok() ? now->expires : absl::InfinitePast();
}

absl::StatusOr<std::shared_ptr<const Credentials>> Credentials::Load(const TlsOptions& options) {
  if (options.none()) return nullptr;
  for (const std::string& server : options.servers) {
    REPRISE_RETURN_IF_ERROR(CheckSpiffeId(server));
  }
  REPRISE_ASSIGN_OR_RETURN(Identity identity, ReadIdentity(options));
  return std::shared_ptr<const Credentials>(new Credentials(options, std::move(identity)));
}

std::function<absl::Time()> ExpiryOf(std::shared_ptr<const Credentials> credentials) {
  if (credentials == nullptr) return nullptr;
  return [credentials = std::move(credentials)] { return credentials->Expires(); };
}

}  // namespace reprise::wire
