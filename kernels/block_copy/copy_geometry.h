// Which bytes of a block and of a page belong together, for kernels that copy in units of 1 to 16
// bytes. The same code runs on the CPU, where tests prove it.
//
// A plane of a block is cut into units in the block's own order, so that neighbouring threads touch
// neighbouring bytes of the block, and of a row of the engine's page.
//
// Thread safety: values; pure functions. C++17.
#pragma once

#include <cstdint>

#include "kernels/block_copy/paged_plan.h"
#include "kernels/runtime/host_device.h"

namespace reprise::kernels {

// Division of numbers below 2^31 by one divisor without a divide instruction (Granlund and
// Montgomery, "Division by invariant integers using multiplication", PLDI 1994).
class FastDivide {
 public:
  FastDivide() = default;
  // REQUIRES: 1 <= divisor < 2^31.
  explicit FastDivide(uint32_t divisor) : divisor_(divisor) {
    uint32_t bits = 0;
    while ((uint64_t{1} << bits) < divisor) ++bits;
    shift_ = 31 + bits;
    multiplier_ = static_cast<uint32_t>((uint64_t{1} << shift_) / divisor + 1);
  }

  // REQUIRES: n < 2^31.
  REPRISE_HD uint32_t Quotient(uint32_t n) const {
    return static_cast<uint32_t>(static_cast<uint64_t>(n) * multiplier_ >> shift_);
  }
  REPRISE_HD uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_ = 1;
  uint32_t multiplier_ = 0x80000001u;
  uint32_t shift_ = 31;
};

struct CopyGeometry {
  uint32_t unit_bytes = 1;  // of one access: 16, 8, 4, 2 or 1
  uint32_t heads = 0;
  uint32_t pages_per_block = 0;
  uint32_t row_data_bytes = 0;
  uint32_t row_bytes = 0;
  uint32_t units_per_plane = 0;
  uint64_t plane_bytes = 0;
  FastDivide row_units;
  FastDivide block_tokens;
  FastDivide page_tokens;
};

// The widest unit that every base, stride and row of the plan allows.
inline uint32_t UnitBytesOf(const PagedPlan& plan) {
  uint64_t bits = plan.row_data_bytes;
  for (const PagedPlane& plane : plan.planes) {
    bits |= reinterpret_cast<uintptr_t>(plane.base) |
            static_cast<uint64_t>(plane.page_stride_bytes) |
            static_cast<uint64_t>(plane.head_stride_bytes) |
            static_cast<uint64_t>(plane.token_stride_bytes);
  }
  uint32_t unit = 16;
  while (bits % unit != 0) unit /= 2;
  return unit;
}

// REQUIRES: PlanFault(plan) is empty and a plane has less than 2 GiB.
inline CopyGeometry MakeCopyGeometry(const PagedPlan& plan) {
  CopyGeometry geometry;
  geometry.unit_bytes = UnitBytesOf(plan);
  geometry.heads = plan.heads;
  geometry.pages_per_block = plan.PagesPerBlock();
  geometry.row_data_bytes = plan.row_data_bytes;
  geometry.row_bytes = plan.row_bytes;
  geometry.plane_bytes = uint64_t{plan.heads} * plan.block_tokens * plan.row_bytes;
  geometry.units_per_plane = static_cast<uint32_t>(geometry.plane_bytes / geometry.unit_bytes);
  geometry.row_units = FastDivide(plan.row_bytes / geometry.unit_bytes);
  geometry.block_tokens = FastDivide(plan.block_tokens);
  geometry.page_tokens = FastDivide(plan.page_tokens);
  return geometry;
}

// One row of one plane of a block: which page it is in, and where there.
struct RowPlace {
  uint32_t token;
  uint32_t page_index;    // in the block's list of pages
  int64_t engine_offset;  // from the start of that page
};

REPRISE_HD RowPlace PlaceRow(const CopyGeometry& geometry, const PagedPlane& plane, uint32_t head,
                             uint32_t token) {
  RowPlace place;
  place.token = token;
  place.page_index = geometry.page_tokens.Quotient(token);
  const uint32_t token_in_page = token - place.page_index * geometry.page_tokens.divisor();
  place.engine_offset = static_cast<int64_t>(head) * plane.head_stride_bytes +
                        static_cast<int64_t>(token_in_page) * plane.token_stride_bytes;
  return place;
}

struct UnitPlace {
  RowPlace row;
  uint32_t byte_in_row;
};

// REQUIRES: unit < geometry.units_per_plane. The unit is at unit * unit_bytes in the block's plane.
REPRISE_HD UnitPlace PlaceUnit(const CopyGeometry& geometry, const PagedPlane& plane,
                               uint32_t unit) {
  const uint32_t row = geometry.row_units.Quotient(unit);
  const uint32_t head = geometry.block_tokens.Quotient(row);
  UnitPlace place;
  place.byte_in_row = (unit - row * geometry.row_units.divisor()) * geometry.unit_bytes;
  place.row = PlaceRow(geometry, plane, head, row - head * geometry.block_tokens.divisor());
  return place;
}

// The engine's bytes of one unit, or null: padding, a token that the engine has not, or no page.
REPRISE_HD uint8_t* EngineUnit(const CopyGeometry& geometry, const PagedPlane& plane,
                               const int64_t* pages, uint32_t tokens, uint32_t unit) {
  const UnitPlace place = PlaceUnit(geometry, plane, unit);
  if (place.byte_in_row >= geometry.row_data_bytes || place.row.token >= tokens) return nullptr;
  const int64_t page = pages[place.row.page_index];
  if (page < 0) return nullptr;
  return plane.base + page * plane.page_stride_bytes + place.row.engine_offset + place.byte_in_row;
}

}  // namespace reprise::kernels
