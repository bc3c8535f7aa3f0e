// What all NCCL links of a process share.
//
// Thread safety: immutable.
#pragma once

#include <memory>

#include "cluster/lanes/nccl/link_cap.h"
#include "cluster/lanes/nccl/nccl_device.h"
#include "cluster/lanes/nccl/nccl_library.h"

namespace reprise::lanes {

struct NcclParts {
  std::shared_ptr<const NcclLibrary> nccl;
  std::shared_ptr<NcclDevice> device;
  std::shared_ptr<LinkCap> cap;
};

}  // namespace reprise::lanes
