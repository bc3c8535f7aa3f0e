#include "cluster/lanes/view/extent_exporter.h"

namespace reprise::lanes {

absl::StatusOr<DeviceHandle> ExtentExporter::Share(const ExtentView&, AttachmentId) {
  return absl::UnavailableError("this shard shares no device memory");
}

void ExtentExporter::Unshared(AttachmentId) {}

}  // namespace reprise::lanes
