// Moves blocks between an engine's paged K/V tensors (paged_plan.h) and the canonical block layout.
//
// A canonical block is [layer][plane][head][token][row], rows padded to 16 bytes
// (proto/types/cache_spec.h); padding is written as zeros by Gather and not read by Scatter.
//
// Thread safety: a plan is immutable; Gather and Scatter may run in parallel on different pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/block_copy/paged_plan.h"

namespace reprise::kernels {

// Packs one block. `pages` are the block's engine pages in token order: PagesPerBlock() of them.
// REQUIRES: block has plan.block_bytes bytes and does not overlap the engine's memory.
void GatherBlock(const PagedPlan& plan, std::span<const int64_t> pages, uint8_t* block);

// Unpacks one block. Same requirements.
void ScatterBlock(const PagedPlan& plan, std::span<const int64_t> pages, const uint8_t* block);

// The same for a part of the block; `block` is the start of the whole block, of which only the
// part's layers are touched.
void GatherBlockPart(const PagedPlan& plan, const BlockPart& part, std::span<const int64_t> pages,
                     uint8_t* block);
void ScatterBlockPart(const PagedPlan& plan, const BlockPart& part, std::span<const int64_t> pages,
                      const uint8_t* block);

// What is wrong with a plan, as one sentence for people; empty when it can be used. Looks at the
// numbers alone: that the engine's memory is there is the caller's promise.
const char* PlanFault(const PagedPlan& plan);

}  // namespace reprise::kernels
