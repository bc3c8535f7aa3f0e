// libnccl.so.2, loaded at run time, so that one binary starts with and without it.
//
// Invariants: a loaded library stays loaded as long as the process lives (NCCL keeps threads).
// Thread safety: immutable after Load.
#pragma once

#include <nccl.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace reprise::lanes {

class NcclLibrary {
 public:
  // `path`: "" for what the loader finds as libnccl.so.2. UNAVAILABLE (NCCL_ABSENT) with a sentence
  // for people when there is none, when it lacks a symbol, or when it is older than what the lane
  // needs.
  static absl::StatusOr<std::shared_ptr<const NcclLibrary>> Load(const std::string& path = "");

  int version() const { return version_; }  // 22809 for 2.28.9
  std::string VersionText() const;          // "2.28.9"

  // OK for ncclSuccess and ncclInProgress; UNAVAILABLE (LANE_DOWN) for everything else, with NCCL's
  // own words.
  absl::Status ToStatus(ncclResult_t result, absl::string_view doing) const;

  decltype(&::ncclGetVersion) GetVersion = nullptr;
  decltype(&::ncclGetUniqueId) GetUniqueId = nullptr;
  decltype(&::ncclCommInitRankConfig) CommInitRankConfig = nullptr;
  decltype(&::ncclCommGetAsyncError) CommGetAsyncError = nullptr;
  decltype(&::ncclCommAbort) CommAbort = nullptr;
  decltype(&::ncclGroupStart) GroupStart = nullptr;
  decltype(&::ncclGroupEnd) GroupEnd = nullptr;
  decltype(&::ncclSend) Send = nullptr;
  decltype(&::ncclRecv) Recv = nullptr;
  decltype(&::ncclGetErrorString) GetErrorString = nullptr;

 private:
  NcclLibrary() = default;

  int version_ = 0;
};

}  // namespace reprise::lanes
