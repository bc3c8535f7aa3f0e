#include "service/shard/handlers/attachments.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

absl::Status Unknown(AttachmentId id) {
  return Refusal(absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN",
                 absl::StrCat("attachment_id = ", id.value,
                              " is not attached: its stream ended, or it never was; attach anew"));
}

}  // namespace

absl::Status Attachments::AddStream(AttachedStream* stream) {
  absl::MutexLock lock(&mu_);
  streams_.insert(stream);
  return ended_;
}

void Attachments::RemoveStream(AttachedStream* stream) {
  absl::MutexLock lock(&mu_);
  streams_.erase(stream);
}

void Attachments::Own(AttachmentId id, AttachmentOwner owner) {
  absl::MutexLock lock(&owners_mu_);
  owners_[id] = std::move(owner);
}

void Attachments::Disown(AttachmentId id) {
  absl::MutexLock lock(&owners_mu_);
  owners_.erase(id);
}

absl::Status Attachments::Check(AttachmentId id, const Tenant& caller) const {
  return TenantOf(id, caller).status();
}

absl::StatusOr<Tenant> Attachments::TenantOf(AttachmentId id, const Tenant& caller) const {
  {
    absl::MutexLock lock(&owners_mu_);
    const auto it = owners_.find(id);
    if (it != owners_.end() && it->second.caller == caller) return it->second.tenant;
  }
  return Unknown(id);
}

absl::StatusOr<Tenant> Attachments::CallerOf(AttachmentId id) const {
  {
    absl::MutexLock lock(&owners_mu_);
    const auto it = owners_.find(id);
    if (it != owners_.end()) return it->second.caller;
  }
  return Unknown(id);
}

void Attachments::ForEach(absl::FunctionRef<void(AttachedStream&)> visit) {
  absl::MutexLock lock(&mu_);
  for (AttachedStream* stream : streams_) visit(*stream);
}

void Attachments::EndAll(const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  ended_ = why;
  for (AttachedStream* stream : streams_) stream->EndStopping(why);
}

void Attachments::OweNotice() {
  absl::MutexLock lock(&notices_mu_);
  ++notices_owed_;
}

void Attachments::PayNotice() {
  absl::MutexLock lock(&notices_mu_);
  --notices_owed_;
}

bool Attachments::AwaitNotices(absl::Time deadline) {
  absl::MutexLock lock(&notices_mu_);
  const auto paid = [this]() ABSL_SHARED_LOCKS_REQUIRED(notices_mu_) { return notices_owed_ == 0; };
  return notices_mu_.AwaitWithDeadline(absl::Condition(&paid), deadline);
}

}  // namespace reprise::shard
