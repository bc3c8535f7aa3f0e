#include "proto/types/ids.h"

namespace reprise {

const char* TierName(Tier tier) {
  switch (tier) {
    case Tier::kHbm:
      return "hbm";
    case Tier::kDram:
      return "dram";
    case Tier::kNvme:
      return "nvme";
  }
  return "unknown";
}

const char* LaneKindName(LaneKind kind) {
  switch (kind) {
    case LaneKind::kInProcess:
      return "in-process";
    case LaneKind::kStream:
      return "stream";
    case LaneKind::kView:
      return "view";
    case LaneKind::kNccl:
      return "nccl";
    case LaneKind::kTcp:
      return "tcp";
  }
  return "unknown";
}

}  // namespace reprise
