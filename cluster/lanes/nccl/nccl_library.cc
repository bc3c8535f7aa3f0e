#include "cluster/lanes/nccl/nccl_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/refusal.h"

namespace reprise::lanes {
namespace {

// Communicators that do not block, and ncclRemoteError: what the lane cannot do without.
constexpr int kOldestVersion = NCCL_VERSION(2, 14, 3);

absl::Status Absent(absl::string_view sentence) {
  return Refusal(absl::StatusCode::kUnavailable, "NCCL_ABSENT", sentence);
}

template <typename Function>
bool Find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) missing = name;
  return function != nullptr;
}

std::string TextOf(int version) {
  return absl::StrCat(version / 10'000, ".", version / 100 % 100, ".", version % 100);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::Load(const std::string& path) {
  const std::string name = path.empty() ? "libnccl.so.2" : path;
  void* library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    return Absent(absl::StrCat(
        "NCCL: not found (", why == nullptr ? name : why,
        "): install libnccl2 or the nvidia-nccl wheel, or put its folder into LD_LIBRARY_PATH; "
        "until then blocks move by the view and stream lanes"));
  }
  std::shared_ptr<NcclLibrary> nccl(new NcclLibrary());
  std::string missing;
  if (!Find(library, "ncclGetVersion", nccl->GetVersion, missing) ||
      !Find(library, "ncclGetUniqueId", nccl->GetUniqueId, missing) ||
      !Find(library, "ncclCommInitRankConfig", nccl->CommInitRankConfig, missing) ||
      !Find(library, "ncclCommGetAsyncError", nccl->CommGetAsyncError, missing) ||
      !Find(library, "ncclCommAbort", nccl->CommAbort, missing) ||
      !Find(library, "ncclGroupStart", nccl->GroupStart, missing) ||
      !Find(library, "ncclGroupEnd", nccl->GroupEnd, missing) ||
      !Find(library, "ncclSend", nccl->Send, missing) ||
      !Find(library, "ncclRecv", nccl->Recv, missing) ||
      !Find(library, "ncclGetErrorString", nccl->GetErrorString, missing)) {
    return Absent(absl::StrCat("NCCL: ", name, " has no ", missing, ": install NCCL ",
                               TextOf(kOldestVersion), " or newer"));
  }
  if (nccl->GetVersion(&nccl->version_) != ncclSuccess || nccl->version_ < kOldestVersion) {
    return Absent(absl::StrCat("NCCL: ", name, " is version ", TextOf(nccl->version_), ": install ",
                               TextOf(kOldestVersion), " or newer"));
  }
  return std::shared_ptr<const NcclLibrary>(std::move(nccl));
}

std::string NcclLibrary::VersionText() const {
  return TextOf(version_);
}

absl::Status NcclLibrary::ToStatus(ncclResult_t result, absl::string_view doing) const {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return LaneDown(absl::StrCat("NCCL: ", doing, ": ", GetErrorString(result), " (",
                               static_cast<int>(result), ")"));
}

}  // namespace reprise::lanes
