#include "cluster/membership/etcd/etcd_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/sync_stream.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/membership/etcd/etcd.grpc.pb.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "proto/wire/channel.h"
#include "proto/wire/status.h"

namespace reprise::cluster {
namespace {

absl::Status Bad(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, "ETCD_FLAGS", sentence);
}

absl::Status CheckEndpoint(const std::string& endpoint) {
  const size_t colon = endpoint.rfind(':');
  uint32_t port = 0;
  if (colon != std::string::npos && colon > 0 && endpoint.find('/') == std::string::npos &&
      absl::SimpleAtoi(endpoint.substr(colon + 1), &port) && port > 0 && port <= 65'535) {
    return absl::OkStatus();
  }
  return Bad(absl::StrCat("--etcd \"", endpoint,
                          "\" is no HOST:PORT (without https://, which --etcd-ca stands for)"));
}

absl::Status CheckFile(absl::string_view flag, const std::string& path) {
  if (path.empty() || ::access(path.c_str(), R_OK) == 0) return absl::OkStatus();
  return Bad(absl::StrCat(flag, ": ", path, " cannot be read"));
}

bool IsLoopback(absl::string_view endpoint) {
  return absl::StartsWith(endpoint, "127.") || absl::StartsWith(endpoint, "localhost:") ||
         absl::StartsWith(endpoint, "[::1]:");
}

absl::Status Check(const EtcdOptions& options) {
  if (options.endpoints.empty()) return Bad("--etcd names no HOST:PORT");
  for (const std::string& endpoint : options.endpoints) {
    REPRISE_RETURN_IF_ERROR(CheckEndpoint(endpoint));
  }
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return Bad("--etcd-cert and --etcd-key are a pair: give both or neither");
  }
  if (!options.certificate_file.empty() && options.ca_file.empty()) {
    return Bad("--etcd-cert without --etcd-ca: name the authorities that etcd's certificate is of");
  }
  if (options.user.empty() != options.password_file.empty()) {
    return Bad("--etcd-user and --etcd-password-file are a pair: give both or neither");
  }
  if (!options.user.empty() && options.ca_file.empty() &&
      !std::all_of(options.endpoints.begin(), options.endpoints.end(), IsLoopback)) {
    return Bad(
        "--etcd-user sends a password, and without --etcd-ca it is read on the way: give it");
  }
  REPRISE_RETURN_IF_ERROR(CheckFile("--etcd-ca", options.ca_file));
  REPRISE_RETURN_IF_ERROR(CheckFile("--etcd-cert", options.certificate_file));
  REPRISE_RETURN_IF_ERROR(CheckFile("--etcd-key", options.key_file));
  return CheckFile("--etcd-password-file", options.password_file);
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const EtcdOptions& options) {
  if (options.ca_file.empty()) return grpc::InsecureChannelCredentials();
  using grpc::experimental::FileWatcherCertificateProvider;
  const auto every = static_cast<unsigned int>(absl::ToInt64Seconds(limits::kTlsReloadInterval));
  const bool shows_one = !options.certificate_file.empty();
  grpc::experimental::TlsChannelCredentialsOptions tls;
  tls.set_certificate_provider(
      shows_one ? std::make_shared<FileWatcherCertificateProvider>(
                      options.key_file, options.certificate_file, options.ca_file, every)
                : std::make_shared<FileWatcherCertificateProvider>(options.ca_file, every));
  tls.watch_root_certs();
  if (shows_one) tls.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(tls);
}

absl::StatusOr<std::string> ReadPassword(const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
  if (file == nullptr) return Bad(absl::StrCat("--etcd-password-file: ", path, " cannot be read"));
  std::string text(limits::kNameBytesMax * 2, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return std::string(absl::StripTrailingAsciiWhitespace(text));
}

// The first key after all that begin with `prefix`.
std::string EndOf(absl::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // to etcd: all keys
  ++end.back();
  return end;
}

struct Endpoint {
  explicit Endpoint(const std::shared_ptr<grpc::Channel>& channel)
      : kv(etcdserverpb::KV::NewStub(channel)),
        watch(etcdserverpb::Watch::NewStub(channel)),
        lease(etcdserverpb::Lease::NewStub(channel)),
        auth(etcdserverpb::Auth::NewStub(channel)) {}
  std::unique_ptr<etcdserverpb::KV::Stub> kv;
  std::unique_ptr<etcdserverpb::Watch::Stub> watch;
  std::unique_ptr<etcdserverpb::Lease::Stub> lease;
  std::unique_ptr<etcdserverpb::Auth::Stub> auth;
};

EtcdEntry ToEntry(const etcdserverpb::KeyValue& kv) {
  return {kv.key(), kv.value(), kv.mod_revision(), EtcdLease{kv.lease()}};
}

class EtcdClientImpl final : public EtcdClient {
 public:
  explicit EtcdClientImpl(EtcdOptions options)
      : options_(std::move(options)), credentials_(CredentialsOf(options_)) {
    for (const std::string& endpoint : options_.endpoints) endpoints_.push_back(Dial(endpoint));
  }

  absl::StatusOr<EtcdListing> List(absl::string_view prefix) override {
    REPRISE_ASSIGN_OR_RETURN(const auto response, Range(prefix, EndOf(prefix)));
    EtcdListing listing{.revision = response.header().revision()};
    for (const auto& kv : response.kvs()) listing.entries.push_back(ToEntry(kv));
    return listing;
  }

  absl::StatusOr<std::optional<EtcdEntry>> Get(absl::string_view key) override {
    REPRISE_ASSIGN_OR_RETURN(const auto response, Range(key, ""));
    if (response.kvs().empty()) return std::nullopt;
    return ToEntry(response.kvs(0));
  }

  absl::StatusOr<EtcdLease> Grant(absl::Duration ttl) override {
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(absl::ToInt64Seconds(absl::Ceil(ttl, absl::Seconds(1))));
    etcdserverpb::LeaseGrantResponse response;
    REPRISE_RETURN_IF_ERROR(Call([&](Endpoint& endpoint, grpc::ClientContext& context) {
      return endpoint.lease->LeaseGrant(&context, request, &response);
    }));
    if (response.error().empty() && response.id() != 0) return EtcdLease{response.id()};
    return Refusal(absl::StatusCode::kUnavailable, "ETCD",
                   absl::StrCat(options_.Name(), " granted no lease: ", response.error()));
  }

  // A stream for one message: it is sent a few times a minute.
  absl::Status KeepAlive(EtcdLease lease) override {
    etcdserverpb::LeaseKeepAliveRequest request;
    request.set_id(static_cast<int64_t>(lease));
    etcdserverpb::LeaseKeepAliveResponse response;
    REPRISE_RETURN_IF_ERROR(Call([&](Endpoint& endpoint, grpc::ClientContext& context) {
      const auto stream = endpoint.lease->LeaseKeepAlive(&context);
      const bool answered = stream->Write(request) && stream->Read(&response);
      stream->WritesDone();
      if (!answered) return stream->Finish();
      context.TryCancel();
      stream->Finish();
      return grpc::Status::OK;
    }));
    if (response.ttl() > 0) return absl::OkStatus();
    return Refusal(absl::StatusCode::kNotFound, "ETCD_LEASE", "the lease in etcd has ended");
  }

  absl::StatusOr<bool> Put(const EtcdEntry& entry) override {
    etcdserverpb::TxnRequest request;
    auto* const compare = request.add_compare();
    compare->set_target(etcdserverpb::Compare::MOD);
    compare->set_key(entry.key);
    compare->set_mod_revision(entry.mod_revision);
    auto* const put = request.add_success()->mutable_request_put();
    put->set_key(entry.key);
    put->set_value(entry.value);
    put->set_lease(static_cast<int64_t>(entry.lease));
    etcdserverpb::TxnResponse response;
    REPRISE_RETURN_IF_ERROR(Call([&](Endpoint& endpoint, grpc::ClientContext& context) {
      return endpoint.kv->Txn(&context, request, &response);
    }));
    return response.succeeded();
  }

  absl::Status Watch(absl::string_view prefix, int64_t first_revision, absl::Duration age,
                     const OnChanges& on_changes) override {
    etcdserverpb::WatchRequest request;
    request.mutable_create_request()->set_key(std::string(prefix));
    request.mutable_create_request()->set_range_end(EndOf(prefix));
    request.mutable_create_request()->set_start_revision(first_revision);
    const absl::Time end = absl::Now() + age;
    if (const grpc::Status known = Authenticate(); !known.ok()) {
      NextEndpoint(known);
      return Explained(known);
    }
    absl::Status status;
    bool answered = false;
    const grpc::Status ended = Attempt(end, [&](Endpoint& endpoint, grpc::ClientContext& context) {
      const auto stream = endpoint.watch->Watch(&context);
      etcdserverpb::WatchResponse response;
      stream->Write(request);
      while (stream->Read(&response)) {
        answered = true;
        // That it was created says nothing of what happened since `first_revision`.
        status = response.created() ? absl::OkStatus() : Deliver(response, on_changes);
        if (status.ok()) continue;
        context.TryCancel();
        break;
      }
      return stream->Finish();
    });
    if (!status.ok()) return status;
    // Its age is its deadline.
    if (answered && ended.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return absl::OkStatus();
    }
    if (ended.ok()) {
      return Refusal(absl::StatusCode::kUnavailable, "ETCD",
                     absl::StrCat(options_.Name(), " ended a watch before its time"));
    }
    if (MayBeTheToken(ended)) token_.clear();
    NextEndpoint(ended);
    return Explained(ended);
  }

  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    if (under_way_ != nullptr) under_way_->TryCancel();
  }

 private:
  absl::StatusOr<etcdserverpb::RangeResponse> Range(absl::string_view key,
                                                    absl::string_view range_end) {
    etcdserverpb::RangeRequest request;
    request.set_key(std::string(key));
    request.set_range_end(std::string(range_end));
    etcdserverpb::RangeResponse response;
    REPRISE_RETURN_IF_ERROR(Call([&](Endpoint& endpoint, grpc::ClientContext& context) {
      return endpoint.kv->Range(&context, request, &response);
    }));
    return response;
  }

  static absl::Status Deliver(const etcdserverpb::WatchResponse& response,
                              const OnChanges& on_changes) {
    if (response.canceled()) {
      return Refusal(absl::StatusCode::kUnavailable, "ETCD",
                     absl::StrCat("etcd ended the watch: ", response.cancel_reason()));
    }
    std::vector<EtcdChange> changes;
    for (const auto& event : response.events()) {
      changes.push_back(
          {.entry = ToEntry(event.kv()), .deleted = event.type() == etcdserverpb::Event::DELETE});
    }
    on_changes(changes, response.header().revision());
    return absl::OkStatus();
  }

  // One try at the endpoint of the moment.
  template <typename Function>
  grpc::Status Attempt(absl::Time deadline, Function&& function) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    context.AddMetadata("hasleader", "true");
    if (!token_.empty()) context.AddMetadata("token", token_);
    {
      absl::MutexLock lock(&mu_);
      if (cancelled_) return {grpc::StatusCode::CANCELLED, "no longer needed"};
      under_way_ = &context;
    }
    grpc::Status status = function(endpoints_[current_], context);
    absl::MutexLock lock(&mu_);
    under_way_ = nullptr;
    if (cancelled_ && !status.ok()) return {grpc::StatusCode::CANCELLED, "no longer needed"};
    return status;
  }

  // Tries each endpoint once, from the one that answered last.
  template <typename Function>
  absl::Status Call(Function&& function) {
    absl::Status last;
    for (size_t tries = 0; tries < endpoints_.size(); ++tries) {
      grpc::Status status = Authenticate();
      if (status.ok()) status = Attempt(absl::Now() + options_.call_timeout, function);
      if (MayBeTheToken(status)) {
        token_.clear();
        status = Authenticate();
        if (status.ok()) status = Attempt(absl::Now() + options_.call_timeout, function);
      }
      last = Explained(status);
      if (!NextEndpoint(status)) break;
    }
    return last;
  }

  // Tokens end, with a restart of etcd all of them, and those that are signed with every change of
  // its users, which it calls an invalid argument.
  bool MayBeTheToken(const grpc::Status& status) const {
    return !token_.empty() && (status.error_code() == grpc::StatusCode::UNAUTHENTICATED ||
                               status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
                               status.error_code() == grpc::StatusCode::PERMISSION_DENIED);
  }

  // True when another endpoint may do better, which is then the one of the moment. The connection
  // of this one is given up: behind its name there may be another server, which sees a leader.
  bool NextEndpoint(const grpc::Status& status) {
    switch (status.error_code()) {
      case grpc::StatusCode::OK:
      case grpc::StatusCode::CANCELLED:
      // Answers about what was asked.
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::NOT_FOUND:
      case grpc::StatusCode::FAILED_PRECONDITION:
      case grpc::StatusCode::OUT_OF_RANGE:
        return false;
      default:
        endpoints_[current_] = Dial(options_.endpoints[current_]);
        current_ = (current_ + 1) % endpoints_.size();
        return true;
    }
  }

  // OK at once when no token is needed, or one is known.
  grpc::Status Authenticate() {
    if (options_.user.empty() || !token_.empty()) return grpc::Status::OK;
    absl::StatusOr<std::string> password = ReadPassword(options_.password_file);
    if (!password.ok()) return wire::ToGrpcStatus(password.status());
    etcdserverpb::AuthenticateRequest request;
    request.set_name(options_.user);
    request.set_password(*std::move(password));
    etcdserverpb::AuthenticateResponse response;
    const grpc::Status status = Attempt(
        absl::Now() + options_.call_timeout, [&](Endpoint& endpoint, grpc::ClientContext& context) {
          return endpoint.auth->Authenticate(&context, request, &response);
        });
    token_ = response.token();
    return status;
  }

  Endpoint Dial(const std::string& address) const {
    return Endpoint(wire::MakeForeignChannel(address, credentials_, limits::kEtcdPingInterval));
  }

  absl::Status Explained(const grpc::Status& status) const {
    if (status.ok()) return absl::OkStatus();
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return Refusal(absl::StatusCode::kUnavailable, "ETCD",
                     absl::StrCat(options_.Name(), " does not answer (", status.error_message(),
                                  "): is it up, and is --etcd right?"));
    }
    const absl::Status said = wire::FromGrpcStatus(status);
    return {said.code(), absl::StrCat(options_.Name(), ": ", said.message())};
  }

  const EtcdOptions options_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::vector<Endpoint> endpoints_;
  size_t current_ = 0;
  std::string token_;  // empty: none is needed, or none is known

  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* under_way_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace

std::string EtcdOptions::Name() const {
  return absl::StrCat("etcd at ", absl::StrJoin(endpoints, ", "));
}

absl::StatusOr<std::unique_ptr<EtcdClient>> EtcdClient::Create(EtcdOptions options) {
  REPRISE_RETURN_IF_ERROR(Check(options));
  return std::make_unique<EtcdClientImpl>(std::move(options));
}

}  // namespace reprise::cluster
