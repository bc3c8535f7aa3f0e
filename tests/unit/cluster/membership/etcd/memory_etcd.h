// etcd without gRPC, so that what goes on around its clients runs where data races are looked for.
// Keys, revisions and watches; leases that end when they are told to.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cluster/membership/etcd/etcd_client.h"

namespace reprise::cluster {

class MemoryEtcd {
 public:
  // REQUIRES: this outlives the client.
  std::unique_ptr<EtcdClient> NewClient() { return std::make_unique<Client>(*this); }

  void Put(const EtcdEntry& entry) {
    absl::MutexLock lock(&mu_);
    PutLocked(entry);
  }
  void EndLeases() {
    absl::MutexLock lock(&mu_);
    leases_.clear();
    std::erase_if(entries_, [&](const auto& item) {
      mu_.AssertHeld();
      if (item.second.lease == EtcdLease::kNone) return false;
      changes_.push_back(
          {.entry = {.key = item.first, .mod_revision = ++revision_}, .deleted = true});
      return true;
    });
  }

 private:
  class Client final : public EtcdClient {
   public:
    explicit Client(MemoryEtcd& etcd) : etcd_(etcd) {}

    absl::StatusOr<EtcdListing> List(absl::string_view prefix) override {
      absl::MutexLock lock(&etcd_.mu_);
      if (cancelled_) return absl::CancelledError("");
      EtcdListing listing{.revision = etcd_.revision_};
      for (const auto& [key, entry] : etcd_.entries_) {
        if (absl::StartsWith(key, prefix)) listing.entries.push_back(entry);
      }
      return listing;
    }
    absl::StatusOr<std::optional<EtcdEntry>> Get(absl::string_view key) override {
      absl::MutexLock lock(&etcd_.mu_);
      if (cancelled_) return absl::CancelledError("");
      const auto found = etcd_.entries_.find(std::string(key));
      return found == etcd_.entries_.end() ? std::nullopt : std::optional(found->second);
    }
    absl::StatusOr<EtcdLease> Grant(absl::Duration) override {
      absl::MutexLock lock(&etcd_.mu_);
      if (cancelled_) return absl::CancelledError("");
      const EtcdLease lease{++etcd_.last_lease_};
      etcd_.leases_.insert(lease);
      return lease;
    }
    absl::Status KeepAlive(EtcdLease lease) override {
      absl::MutexLock lock(&etcd_.mu_);
      if (cancelled_) return absl::CancelledError("");
      return etcd_.leases_.contains(lease) ? absl::OkStatus() : absl::NotFoundError("");
    }
    absl::StatusOr<bool> Put(const EtcdEntry& entry) override {
      absl::MutexLock lock(&etcd_.mu_);
      if (cancelled_) return absl::CancelledError("");
      if (!etcd_.leases_.contains(entry.lease)) return absl::NotFoundError("no such lease");
      const auto found = etcd_.entries_.find(entry.key);
      const int64_t changed = found == etcd_.entries_.end() ? 0 : found->second.mod_revision;
      if (changed != entry.mod_revision) return false;
      etcd_.PutLocked(entry);
      return true;
    }
    absl::Status Watch(absl::string_view prefix, int64_t first_revision, absl::Duration age,
                       const OnChanges& on_changes) override {
      const absl::Time end = absl::Now() + age;
      for (int64_t next = first_revision; absl::Now() < end;) {
        std::vector<EtcdChange> changes;
        int64_t revision = 0;
        {
          absl::MutexLock lock(&etcd_.mu_);
          const auto new_ones = [&] {
            etcd_.mu_.AssertHeld();
            return cancelled_ || etcd_.revision_ >= next;
          };
          etcd_.mu_.AwaitWithDeadline(absl::Condition(&new_ones), end);
          if (cancelled_) return absl::CancelledError("");
          for (const EtcdChange& change : etcd_.changes_) {
            const bool meant =
                change.entry.mod_revision >= next && absl::StartsWith(change.entry.key, prefix);
            if (meant) changes.push_back(change);
          }
          revision = etcd_.revision_;
        }
        on_changes(changes, revision);
        next = revision + 1;
      }
      return absl::OkStatus();
    }
    void Cancel() override {
      absl::MutexLock lock(&etcd_.mu_);
      cancelled_ = true;
    }

   private:
    MemoryEtcd& etcd_;
    bool cancelled_ = false;  // under the store's lock
  };

  void PutLocked(EtcdEntry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    entry.mod_revision = ++revision_;
    entries_[entry.key] = entry;
    changes_.push_back({.entry = std::move(entry)});
  }

  absl::Mutex mu_;
  int64_t revision_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t last_lease_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<EtcdLease> leases_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, EtcdEntry> entries_ ABSL_GUARDED_BY(mu_);
  std::vector<EtcdChange> changes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::cluster
