// What the view lane needs to know of a shard's memory: which shareable extent an address lies in.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>

namespace reprise::lanes {

struct ExtentView {
  uint64_t id = 0;            // never used for other memory
  int fd = -1;                // a memfd sealed against shrinking; stays the exporter's
  uint64_t offset_bytes = 0;  // of the address in the extent
  uint64_t extent_bytes = 0;
};

class ExtentExporter {
 public:
  virtual ~ExtentExporter() = default;
  // nullopt when `address` lies in no shareable extent. REQUIRES: the slot at `address` is pinned
  // while the answer is used; the descriptor is open for as long.
  virtual std::optional<ExtentView> Export(const uint8_t* address) = 0;
};

}  // namespace reprise::lanes
