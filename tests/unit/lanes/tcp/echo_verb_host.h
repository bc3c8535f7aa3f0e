// Answers verbs with what was asked, or as a test says, and notes who asked.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/lanes/tcp/verb_host.h"

namespace reprise::lanes {

class EchoVerbHost final : public VerbHost {
 public:
  struct Asked {
    AttachmentId attachment;
    tcp::Verb verb;
    std::string request;
  };

  static std::string EchoOf(absl::string_view request) { return absl::StrCat("echo of ", request); }

  absl::StatusOr<std::string> Answer(AttachmentId attachment, tcp::Verb verb,
                                     absl::string_view request) override {
    absl::MutexLock lock(&mu_);
    asked_.push_back({attachment, verb, std::string(request)});
    ++under_way_;
    mu_.Await(absl::Condition(
        +[](EchoVerbHost* self)
             ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mu_) { return !self->stalled_; },
        this));
    --under_way_;
    if (!refusal_.ok()) return refusal_;
    return EchoOf(request);
  }

  void Refuse(absl::Status with) {
    absl::MutexLock lock(&mu_);
    refusal_ = std::move(with);
  }
  // Whether answers wait.
  void Stall(bool stalled) {
    absl::MutexLock lock(&mu_);
    stalled_ = stalled;
  }
  std::vector<Asked> asked() const {
    absl::MutexLock lock(&mu_);
    return asked_;
  }
  size_t under_way() const {
    absl::MutexLock lock(&mu_);
    return under_way_;
  }
  // False when that does not come about.
  bool AwaitUnderWay(size_t count) {
    struct Awaited {
      const EchoVerbHost& host;
      const size_t count;
    } awaited{*this, count};
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(
                                    +[](Awaited* it) ABSL_NO_THREAD_SAFETY_ANALYSIS {
                                      return it->host.under_way_ == it->count;
                                    },
                                    &awaited),
                                absl::Seconds(30));
  }

 private:
  mutable absl::Mutex mu_;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  size_t under_way_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status refusal_ ABSL_GUARDED_BY(mu_);
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::lanes
