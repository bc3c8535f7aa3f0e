#include "service/shard/attachment_table.h"

#include <sys/random.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::shard {
namespace {

// From the kernel's generator: knowing the id is the proof of owning the attachment.
uint64_t RandomId() {
  uint64_t id = 0;
  while (id == 0) REPRISE_CHECK(::getrandom(&id, sizeof(id), 0) == sizeof(id));
  return id;
}

}  // namespace

absl::Status UnknownAttachment(AttachmentId id) {
  return Refusal(
      absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN",
      absl::StrCat("attachment_id = ", absl::Hex(id.value),
                   " is not attached here (it ended, or the shard restarted): attach again"));
}

absl::StatusOr<AttachmentId> AttachmentTable::Add(Entry entry) {
  absl::MutexLock lock(&mu_);
  if (attachments_.size() >= limits::kAttachmentsMax) {
    return Refusal(absl::StatusCode::kResourceExhausted, "ATTACHMENTS_MAX",
                   absl::StrCat("the shard has kAttachmentsMax = ", limits::kAttachmentsMax,
                                " attachments: share one per process, or use another shard"));
  }
  AttachmentId id(RandomId());
  while (attachments_.contains(id)) id = AttachmentId(RandomId());
  attachments_[id].entry = std::move(entry);
  return id;
}

std::vector<KeySpaceId> AttachmentTable::Remove(AttachmentId id) {
  absl::MutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  if (it == attachments_.end()) return {};
  std::vector<KeySpaceId> spaces = std::move(it->second.spaces);
  attachments_.erase(it);
  return spaces;
}

absl::StatusOr<AttachmentTable::Entry> AttachmentTable::Get(AttachmentId id) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  if (it == attachments_.end()) return UnknownAttachment(id);
  return it->second.entry;
}

absl::Status AttachmentTable::Seen(AttachmentId id, absl::Time now) {
  absl::MutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  if (it == attachments_.end()) return UnknownAttachment(id);
  it->second.entry.last_seen = std::max(it->second.entry.last_seen, now);
  return absl::OkStatus();
}

absl::Time AttachmentTable::last_seen(AttachmentId id) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  return it == attachments_.end() ? absl::InfinitePast() : it->second.entry.last_seen;
}

std::vector<AttachmentId> AttachmentTable::SilentSince(absl::Time since) const {
  absl::ReaderMutexLock lock(&mu_);
  std::vector<AttachmentId> silent;
  for (const auto& [id, attachment] : attachments_) {
    if (attachment.entry.last_seen <= since) silent.push_back(id);
  }
  return silent;
}

absl::StatusOr<AttachmentTable::Handle> AttachmentTable::Open(AttachmentId id, KeySpaceId space) {
  absl::MutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  if (it == attachments_.end()) return UnknownAttachment(id);
  std::vector<KeySpaceId>& spaces = it->second.spaces;
  const auto known = std::find(spaces.begin(), spaces.end(), space);
  const auto number = static_cast<uint32_t>(known - spaces.begin()) + 1;
  if (known != spaces.end()) return Handle{SpecHandle(number), false};
  if (spaces.size() >= limits::kSpecsPerAttachmentMax) {
    return Refusal(absl::StatusCode::kResourceExhausted, "SPECS_PER_ATTACHMENT_MAX",
                   absl::StrCat("this attachment has kSpecsPerAttachmentMax = ",
                                limits::kSpecsPerAttachmentMax, " specs open: attach once more"));
  }
  spaces.push_back(space);
  return Handle{SpecHandle(number), true};
}

absl::StatusOr<KeySpaceId> AttachmentTable::Resolve(AttachmentId id, SpecHandle handle) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto it = attachments_.find(id);
  if (it == attachments_.end()) return UnknownAttachment(id);
  if (handle.value == 0 || handle.value > it->second.spaces.size()) {
    return Refusal(absl::StatusCode::kNotFound, "SPEC_UNKNOWN",
                   absl::StrCat("spec_handle = ", handle.value,
                                " was not opened by this attachment: call OpenSpec first"));
  }
  return it->second.spaces[handle.value - 1];
}

size_t AttachmentTable::size() const {
  absl::ReaderMutexLock lock(&mu_);
  return attachments_.size();
}

std::vector<AttachmentId> AttachmentTable::Ids() const {
  absl::ReaderMutexLock lock(&mu_);
  std::vector<AttachmentId> ids;
  for (const auto& [id, attachment] : attachments_) ids.push_back(id);
  return ids;
}

}  // namespace reprise::shard
