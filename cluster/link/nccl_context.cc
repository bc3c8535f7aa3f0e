#include "cluster/link/nccl_context.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/nccl/nccl_lane.h"
#include "cluster/lanes/nccl/nccl_parts.h"
#include "cluster/link/nccl_rpc_control.h"
#include "proto/types/status_macros.h"

namespace reprise::cluster {
namespace {

class LoadedNccl final : public NcclContext {
 public:
  LoadedNccl(NcclOptions options, lanes::NcclParts parts)
      : options_(std::move(options)), parts_(std::move(parts)) {}

  std::unique_ptr<lanes::LinkedLane> MakeLane(const std::shared_ptr<grpc::Channel>& channel,
                                              AttachmentId attachment) const override {
    return std::make_unique<lanes::NcclLane>(lanes::NcclLane::Options{
        .nccl = parts_.nccl,
        .device = parts_.device,
        .control = std::make_shared<NcclRpcControl>(channel, attachment),
        .cap = parts_.cap,
        .state = {.connect_timeout = options_.connect_timeout, .idle_max = options_.idle_max}});
  }
  const lanes::NcclParts& parts() const override { return parts_; }
  const NcclOptions& options() const override { return options_; }
  size_t links() const override { return parts_.cap->links(); }
  uint64_t link_failures() const override { return parts_.cap->failures(); }
  std::string Description() const override {
    return absl::StrCat("NCCL ", parts_.nccl->VersionText(), " on GPU ", options_.gpu);
  }

 private:
  const NcclOptions options_;
  const lanes::NcclParts parts_;
};

// What `path` names; empty: $REPRISE_NCCL_LIBRARY, else the loader's.
absl::StatusOr<std::shared_ptr<const lanes::NcclLibrary>> LoadLibrary(std::string path) {
  if (const char* named = std::getenv("REPRISE_NCCL_LIBRARY"); path.empty() && named != nullptr) {
    path = named;
  }
  ::setenv("NCCL_RAS_ENABLE", "0", /*replace=*/0);
  return lanes::NcclLibrary::Load(path);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclContext>> NcclContext::Open(NcclOptions options) {
  lanes::NcclParts parts{.cap = lanes::LinkCap::Create(options.links_max)};
  REPRISE_ASSIGN_OR_RETURN(parts.device, lanes::OpenGpu(options.gpu));
  REPRISE_ASSIGN_OR_RETURN(parts.nccl, LoadLibrary(options.library));
  return Of(std::move(options), std::move(parts));
}

absl::StatusOr<std::string> NcclContext::LibraryVersion() {
  REPRISE_ASSIGN_OR_RETURN(const auto nccl, LoadLibrary(""));
  return nccl->VersionText();
}

std::shared_ptr<const NcclContext> NcclContext::Of(NcclOptions options, lanes::NcclParts parts) {
  return std::make_shared<const LoadedNccl>(std::move(options), std::move(parts));
}

}  // namespace reprise::cluster
