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
  std::string Description() const override {
    return absl::StrCat("NCCL ", parts_.nccl->VersionText(), " on GPU ", options_.gpu);
  }

 private:
  const NcclOptions options_;
  const lanes::NcclParts parts_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclContext>> NcclContext::Open(NcclOptions options) {
  if (options.library.empty()) {
    if (const char* path = std::getenv("REPRISE_NCCL_LIBRARY")) options.library = path;
  }
  lanes::NcclParts parts{.cap = lanes::LinkCap::Create(options.links_max)};
  REPRISE_ASSIGN_OR_RETURN(parts.device, lanes::OpenGpu(options.gpu));
  ::setenv("NCCL_RAS_ENABLE", "0", /*replace=*/0);
  REPRISE_ASSIGN_OR_RETURN(parts.nccl, lanes::NcclLibrary::Load(options.library));
  return Of(std::move(options), std::move(parts));
}

std::shared_ptr<const NcclContext> NcclContext::Of(NcclOptions options, lanes::NcclParts parts) {
  return std::make_shared<const LoadedNccl>(std::move(options), std::move(parts));
}

}  // namespace reprise::cluster
