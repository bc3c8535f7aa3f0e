#include "tests/support/fake_etcd/fake_etcd.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/membership/etcd/etcd.grpc.pb.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {
namespace {

namespace pb = etcdserverpb;

// How often waiting calls look whether their caller is still there, and leases whether they ended.
constexpr absl::Duration kLook = absl::Milliseconds(5);
// A busy machine stops a test for a while, and its lease is to outlive that.
constexpr int kLeaseStretch = 2;

bool InRange(const std::string& key, const std::string& from, const std::string& end) {
  return end.empty() ? key == from : key >= from && key < end;
}

}  // namespace

class FakeEtcd::Store {
 public:
  void Put(const pb::PutRequest& request) {
    absl::MutexLock lock(&mu_);
    PutLocked(request);
  }

  void Delete(const std::string& key) {
    absl::MutexLock lock(&mu_);
    DeleteLocked(key);
  }

  pb::RangeResponse Range(const pb::RangeRequest& request) {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    pb::RangeResponse response;
    response.mutable_header()->set_revision(revision_);
    for (const auto& [key, kv] : kvs_) {
      if (InRange(key, request.key(), request.range_end())) *response.add_kvs() = kv;
    }
    return response;
  }

  // False: it names a lease that there is not.
  bool Txn(const pb::TxnRequest& request, pb::TxnResponse& response) {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    for (const auto& op : request.success()) {
      const int64_t lease = op.request_put().lease();
      if (lease != 0 && !leases_.contains(lease)) return false;
    }
    response.set_succeeded(
        std::all_of(request.compare().begin(), request.compare().end(), [&](const auto& compare) {
          mu_.AssertHeld();
          const auto found = kvs_.find(compare.key());
          return compare.mod_revision() == (found == kvs_.end() ? 0 : found->second.mod_revision());
        }));
    if (response.succeeded()) {
      for (const auto& op : request.success()) PutLocked(op.request_put());
    }
    response.mutable_header()->set_revision(revision_);
    return true;
  }

  int64_t Grant(absl::Duration ttl) {
    absl::MutexLock lock(&mu_);
    leases_[++last_lease_] = {ttl * kLeaseStretch, absl::Now() + ttl * kLeaseStretch};
    return last_lease_;
  }

  // Seconds that it lives on; 0: there is none.
  int64_t KeepAlive(int64_t id) {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    const auto lease = leases_.find(id);
    if (lease == leases_.end()) return 0;
    lease->second.ends = absl::Now() + lease->second.ttl;
    return std::max<int64_t>(1, absl::ToInt64Seconds(lease->second.ttl));
  }

  void EndLeases() {
    absl::MutexLock lock(&mu_);
    for (auto& [id, lease] : leases_) lease.ends = absl::InfinitePast();
    EndOldLeases();
  }

  void Compact() {
    absl::MutexLock lock(&mu_);
    history_.clear();
    compacted_ = revision_;
  }

  // What a watch from `next` on is to be told now; moves `next` on. False: it is compacted.
  bool Changes(const pb::WatchCreateRequest& watch, int64_t& next, pb::WatchResponse& response) {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    response.mutable_header()->set_revision(revision_);
    if (next <= compacted_) {
      response.set_canceled(true);
      response.set_compact_revision(compacted_);
      return false;
    }
    for (const pb::Event& event : history_) {
      if (event.kv().mod_revision() < next) continue;
      if (InRange(event.kv().key(), watch.key(), watch.range_end())) {
        *response.add_events() = event;
      }
    }
    next = std::max(next, revision_ + 1);
    return true;
  }

  int64_t revision() {
    absl::MutexLock lock(&mu_);
    return revision_;
  }

  std::string Value(const std::string& key) {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    const auto found = kvs_.find(key);
    return found == kvs_.end() ? "" : found->second.value();
  }

  size_t size() {
    absl::MutexLock lock(&mu_);
    EndOldLeases();
    return kvs_.size();
  }

 private:
  struct Lease {
    absl::Duration ttl;
    absl::Time ends;
  };

  void PutLocked(const pb::PutRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    pb::KeyValue& kv = kvs_[request.key()];
    kv.set_key(request.key());
    kv.set_value(request.value());
    kv.set_lease(request.lease());
    kv.set_mod_revision(++revision_);
    pb::Event event;
    *event.mutable_kv() = kv;
    history_.push_back(event);
  }

  void DeleteLocked(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (kvs_.erase(key) == 0) return;
    pb::Event event;
    event.set_type(pb::Event::DELETE);
    event.mutable_kv()->set_key(key);
    event.mutable_kv()->set_mod_revision(++revision_);
    history_.push_back(event);
  }

  void EndOldLeases() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const absl::Time now = absl::Now();
    for (auto lease = leases_.begin(); lease != leases_.end();) {
      if (lease->second.ends > now) {
        ++lease;
        continue;
      }
      std::vector<std::string> keys;
      for (const auto& [key, kv] : kvs_) {
        if (kv.lease() == lease->first) keys.push_back(key);
      }
      for (const std::string& key : keys) DeleteLocked(key);
      lease = leases_.erase(lease);
    }
  }

  absl::Mutex mu_;
  int64_t revision_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t compacted_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t last_lease_ ABSL_GUARDED_BY(mu_) = 100;
  std::map<std::string, pb::KeyValue> kvs_ ABSL_GUARDED_BY(mu_);
  std::map<int64_t, Lease> leases_ ABSL_GUARDED_BY(mu_);
  std::vector<pb::Event> history_ ABSL_GUARDED_BY(mu_);
};

class FakeEtcd::Services final : public pb::KV::Service,
                                 public pb::Watch::Service,
                                 public pb::Lease::Service,
                                 public pb::Auth::Service {
 public:
  explicit Services(Store& store) : store_(store) {}

  // The port that it serves on.
  int Start(int port) {
    grpc::ServerBuilder builder;
    int bound = 0;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                             &bound);
    builder.RegisterService(static_cast<pb::KV::Service*>(this));
    builder.RegisterService(static_cast<pb::Watch::Service*>(this));
    builder.RegisterService(static_cast<pb::Lease::Service*>(this));
    builder.RegisterService(static_cast<pb::Auth::Service*>(this));
    SetStopping(false);
    server_ = builder.BuildAndStart();
    REPRISE_CHECK(server_ != nullptr && bound != 0);
    return bound;
  }

  void Stop() {
    if (server_ == nullptr) return;
    SetStopping(true);
    server_->Shutdown(absl::ToChronoTime(absl::Now()));
    server_->Wait();
    server_.reset();
  }

  void SetPaused(bool paused) {
    absl::MutexLock lock(&mu_);
    paused_ = paused;
  }
  void SetLeader(bool leader) {
    absl::MutexLock lock(&mu_);
    leader_ = leader;
  }
  void RequireUser(const std::string& name, const std::string& password) {
    absl::MutexLock lock(&mu_);
    user_ = name;
    password_ = password;
    ++tokens_;
  }
  void VoidTokens() {
    absl::MutexLock lock(&mu_);
    ++tokens_;
  }
  int watches() const {
    absl::MutexLock lock(&mu_);
    return watches_;
  }
  int watches_begun() const {
    absl::MutexLock lock(&mu_);
    return watches_begun_;
  }
  void HoldChanges(bool hold) {
    absl::MutexLock lock(&mu_);
    holds_changes_ = hold;
  }

  grpc::Status Range(grpc::ServerContext* context, const pb::RangeRequest* request,
                     pb::RangeResponse* response) override {
    if (grpc::Status status = Admit(*context); !status.ok()) return status;
    *response = store_.Range(*request);
    return grpc::Status::OK;
  }

  grpc::Status Txn(grpc::ServerContext* context, const pb::TxnRequest* request,
                   pb::TxnResponse* response) override {
    if (grpc::Status status = Admit(*context); !status.ok()) return status;
    if (store_.Txn(*request, *response)) return grpc::Status::OK;
    return {grpc::StatusCode::NOT_FOUND, "requested lease not found"};
  }

  grpc::Status LeaseGrant(grpc::ServerContext* context, const pb::LeaseGrantRequest* request,
                          pb::LeaseGrantResponse* response) override {
    if (grpc::Status status = Admit(*context); !status.ok()) return status;
    response->set_id(store_.Grant(absl::Seconds(request->ttl())));
    response->set_ttl(request->ttl());
    return grpc::Status::OK;
  }

  grpc::Status LeaseKeepAlive(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<pb::LeaseKeepAliveResponse, pb::LeaseKeepAliveRequest>* stream)
      override {
    pb::LeaseKeepAliveRequest request;
    while (stream->Read(&request)) {
      if (grpc::Status status = Admit(*context); !status.ok()) return status;
      pb::LeaseKeepAliveResponse response;
      response.set_id(request.id());
      response.set_ttl(store_.KeepAlive(request.id()));
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  grpc::Status Watch(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<pb::WatchResponse, pb::WatchRequest>* stream) override {
    pb::WatchRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    grpc::Status status = Admit(*context);
    if (!status.ok()) return status;
    pb::WatchResponse created;
    created.set_created(true);
    created.mutable_header()->set_revision(store_.revision());
    stream->Write(created);
    AddWatch(1);
    int64_t next = request.create_request().start_revision();
    while (status.ok()) {
      status = Admit(*context);
      if (!status.ok()) break;
      if (HoldsChanges()) {
        if (Wait(*context)) break;
        continue;
      }
      pb::WatchResponse response;
      const bool known = store_.Changes(request.create_request(), next, response);
      if (!known || response.events_size() > 0) stream->Write(response);
      if (!known || Wait(*context)) break;
    }
    AddWatch(-1);
    return status;
  }

  grpc::Status Authenticate(grpc::ServerContext* context, const pb::AuthenticateRequest* request,
                            pb::AuthenticateResponse* response) override {
    if (grpc::Status status = Serves(*context); !status.ok()) return status;
    absl::MutexLock lock(&mu_);
    if (user_.empty()) {
      return {grpc::StatusCode::FAILED_PRECONDITION, "authentication is not enabled"};
    }
    if (request->name() != user_ || request->password() != password_) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "invalid user ID or password"};
    }
    response->set_token(absl::StrCat("token-", tokens_));
    return grpc::Status::OK;
  }

 private:
  // A pause, and the leader.
  grpc::Status Serves(const grpc::ServerContext& context) {
    absl::MutexLock lock(&mu_);
    while (paused_ && !stopping_ && !context.IsCancelled()) {
      const auto go_on = [this] {
        mu_.AssertHeld();
        return !paused_ || stopping_;
      };
      mu_.AwaitWithTimeout(absl::Condition(&go_on), kLook);
    }
    if (stopping_) return {grpc::StatusCode::UNAVAILABLE, "server stopped"};
    const auto wants_leader = context.client_metadata().find("hasleader");
    if (leader_ || wants_leader == context.client_metadata().end()) return grpc::Status::OK;
    return {grpc::StatusCode::UNAVAILABLE, "no leader"};
  }

  // What every call but Authenticate goes through.
  grpc::Status Admit(const grpc::ServerContext& context) {
    if (grpc::Status status = Serves(context); !status.ok()) return status;
    absl::MutexLock lock(&mu_);
    if (user_.empty()) return grpc::Status::OK;
    const auto token = context.client_metadata().find("token");
    const bool valid =
        token != context.client_metadata().end() &&
        std::string(token->second.data(), token->second.size()) == absl::StrCat("token-", tokens_);
    if (valid) return grpc::Status::OK;
    // As of a signed token, when users have changed since.
    if (tokens_ % 2 == 0) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "revision of auth store is old"};
    }
    return {grpc::StatusCode::UNAUTHENTICATED, "invalid auth token"};
  }

  // True when a stream is to end.
  bool Wait(const grpc::ServerContext& context) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&stopping_), kLook) || context.IsCancelled();
  }

  void SetStopping(bool stopping) {
    absl::MutexLock lock(&mu_);
    stopping_ = stopping;
  }
  void AddWatch(int change) {
    absl::MutexLock lock(&mu_);
    watches_ += change;
    if (change > 0) watches_begun_ += change;
  }
  bool HoldsChanges() {
    absl::MutexLock lock(&mu_);
    return holds_changes_;
  }

  Store& store_;
  std::unique_ptr<grpc::Server> server_;
  mutable absl::Mutex mu_;
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool leader_ ABSL_GUARDED_BY(mu_) = true;
  bool holds_changes_ ABSL_GUARDED_BY(mu_) = false;
  int watches_ ABSL_GUARDED_BY(mu_) = 0;
  int watches_begun_ ABSL_GUARDED_BY(mu_) = 0;
  std::string user_ ABSL_GUARDED_BY(mu_);
  std::string password_ ABSL_GUARDED_BY(mu_);
  int tokens_ ABSL_GUARDED_BY(mu_) = 0;  // the only one that is valid has this number
};

FakeEtcd::FakeEtcd()
    : store_(std::make_unique<Store>()), services_(std::make_unique<Services>(*store_)) {
  address_ = absl::StrCat("127.0.0.1:", services_->Start(0));
}

FakeEtcd::~FakeEtcd() {
  services_->Stop();
}

const std::string& FakeEtcd::address() const {
  return address_;
}

void FakeEtcd::Put(const std::string& key, const std::string& value) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  store_->Put(request);
}

void FakeEtcd::Delete(const std::string& key) {
  store_->Delete(key);
}
std::string FakeEtcd::Value(const std::string& key) const {
  return store_->Value(key);
}
size_t FakeEtcd::keys() const {
  return store_->size();
}
int FakeEtcd::watches() const {
  return services_->watches();
}
int FakeEtcd::watches_begun() const {
  return services_->watches_begun();
}
void FakeEtcd::HoldChanges(bool hold) {
  services_->HoldChanges(hold);
}
void FakeEtcd::Pause() {
  services_->SetPaused(true);
}
void FakeEtcd::Resume() {
  services_->SetPaused(false);
}
void FakeEtcd::Stop() {
  services_->Stop();
}
void FakeEtcd::Start() {
  services_->Start(std::stoi(address_.substr(address_.rfind(':') + 1)));
}
void FakeEtcd::EndLeases() {
  store_->EndLeases();
}
void FakeEtcd::Compact() {
  store_->Compact();
}
void FakeEtcd::SetLeader(bool present) {
  services_->SetLeader(present);
}
void FakeEtcd::RequireUser(const std::string& name, const std::string& password) {
  services_->RequireUser(name, password);
}
void FakeEtcd::VoidTokens() {
  services_->VoidTokens();
}

}  // namespace reprise::testing
