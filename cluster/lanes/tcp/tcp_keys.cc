#include "cluster/lanes/tcp/tcp_keys.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "proto/types/sha256.h"

namespace reprise::lanes {

TcpKeyName NameOf(const TcpKey& key) {
  std::array<uint8_t, kDigestBytes> digest;
  Sha256().Hash(key, digest);
  TcpKeyName name;
  std::copy_n(digest.begin(), name.size(), name.begin());
  return name;
}

absl::StatusOr<std::optional<TcpKey>> TcpKeys::Add(AttachmentId attachment) {
  std::optional<TcpKey> key;
  if (encrypted_) {
    key.emplace();
    if (::getrandom(key->data(), key->size(), 0) != static_cast<ssize_t>(key->size())) {
      return absl::UnavailableError("tcp lane: no random bytes");
    }
  }
  absl::MutexLock lock(&mu_);
  TcpKeyName& name = names_[attachment];
  if (!key.has_value()) return key;
  name = NameOf(*key);
  keys_[name] = {attachment, *key};
  return key;
}

void TcpKeys::Remove(AttachmentId attachment) {
  absl::MutexLock lock(&mu_);
  const auto at = names_.find(attachment);
  if (at == names_.end()) return;
  if (const auto key = keys_.find(at->second); key != keys_.end()) {
    ::explicit_bzero(key->second.key.data(), key->second.key.size());
    keys_.erase(key);
  }
  names_.erase(at);
}

bool TcpKeys::Knows(AttachmentId attachment) const {
  absl::MutexLock lock(&mu_);
  return names_.contains(attachment);
}

std::optional<TcpKeys::Named> TcpKeys::Find(std::span<const uint8_t> name) const {
  TcpKeyName wanted;
  if (name.size() != wanted.size()) return std::nullopt;
  std::copy(name.begin(), name.end(), wanted.begin());
  absl::MutexLock lock(&mu_);
  const auto at = keys_.find(wanted);
  if (at == keys_.end()) return std::nullopt;
  return at->second;
}

}  // namespace reprise::lanes
