#include "proto/wire/call_times.h"

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/types/clock.h"

namespace reprise::wire {
namespace {

using grpc::experimental::InterceptionHookPoints;

// One call, from its first byte to its status.
class Watched final : public grpc::experimental::Interceptor {
 public:
  Watched(const CallEnded& told, absl::string_view method)
      : told_(told), method_(method), began_(MonotonicClock().Now()) {}
  ~Watched() override {
    if (!over_) Tell(absl::StatusCode::kCancelled);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      Tell(static_cast<absl::StatusCode>(methods->GetSendStatus().error_code()));
    }
    methods->Proceed();
  }

 private:
  void Tell(absl::StatusCode code) {
    if (std::exchange(over_, true)) return;
    told_(method_, code, MonotonicClock().Now() - began_);
  }

  const CallEnded& told_;
  const absl::string_view method_;  // the service's own text
  const absl::Time began_;
  bool over_ = false;
};

class WatchCalls final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit WatchCalls(CallEnded told) : told_(std::move(told)) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new Watched(told_, absl::StripPrefix(info->method(), "/"));
  }

 private:
  const CallEnded told_;
};

}  // namespace

void TellOfCalls(grpc::ServerBuilder& builder, CallEnded told) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
  creators.push_back(std::make_unique<WatchCalls>(std::move(told)));
  builder.experimental().SetInterceptorCreators(std::move(creators));
}

std::vector<std::string> MethodsOf(const google::protobuf::FileDescriptor& file) {
  std::vector<std::string> methods;
  for (int i = 0; i < file.service_count(); ++i) {
    const google::protobuf::ServiceDescriptor& service = *file.service(i);
    for (int j = 0; j < service.method_count(); ++j) {
      methods.push_back(absl::StrCat(service.full_name(), "/", service.method(j)->name()));
    }
  }
  return methods;
}

}  // namespace reprise::wire
