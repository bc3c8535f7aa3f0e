#include "client/cpp/caller_memory.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/device_memory.h"
#include "kernels/checksum/checksum.h"
#include "kernels/quantize/quantize.h"
#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"

namespace reprise::client {
namespace {

constexpr uintptr_t kCodecAlignBytes = 4;  // quantize.h

absl::Status Misuse(absl::string_view reason, absl::string_view sentence) {
  return Refusal(absl::StatusCode::kInvalidArgument, reason, sentence);
}

// Host memory is taken at its word.
absl::Status CheckWhere(const CallerMemory& memory, uint32_t blocks) {
  if (memory.device != kernels::kHostMemory) return CheckDeviceMemory(memory, blocks);
  if (memory.gpu_plan == nullptr) return absl::OkStatus();
  return Misuse("MEMORY_DEVICE", "memory has a GPU's plan and no device: name the plan's");
}

}  // namespace

absl::Status CallerMemory::Check(const BlockLayout& layout, uint32_t blocks,
                                 const kernels::QuantShape* codec) const {
  if (buffers.empty() == (plan == nullptr) && blocks > 0) {
    return Misuse(
        "MEMORY_FORM",
        "memory is neither one buffer per block nor a plan with pages, or both: give one");
  }
  if (plan == nullptr) {
    if (buffers.size() < blocks) {
      return Misuse("MEMORY_BUFFERS", absl::StrCat("buffers has ", buffers.size(), " entries for ",
                                                   blocks, " blocks: give one buffer per block"));
    }
    for (uint32_t i = 0; i < blocks; ++i) {
      if (buffers[i] == nullptr) {
        return Misuse("MEMORY_BUFFERS",
                      absl::StrCat("buffers[", i, "] is null: give the block's memory"));
      }
      if (codec != nullptr && reinterpret_cast<uintptr_t>(buffers[i]) % kCodecAlignBytes != 0) {
        return Misuse("MEMORY_BUFFERS",
                      absl::StrCat("buffers[", i, "] does not begin at a multiple of ",
                                   kCodecAlignBytes, " bytes, which the spec's codec needs"));
      }
    }
    return CheckWhere(*this, blocks);
  }
  if (plan->block_bytes != layout.block_bytes) {
    return Misuse("MEMORY_PLAN", absl::StrCat("plan is for blocks of ", plan->block_bytes,
                                              " bytes, the spec's have ", layout.block_bytes,
                                              ": make the plan from the same spec"));
  }
  if (pages.size() < size_t{blocks} * plan->PagesPerBlock()) {
    return Misuse("MEMORY_PAGES",
                  absl::StrCat("pages has ", pages.size(), " entries for ", blocks, " blocks of ",
                               plan->PagesPerBlock(), " pages: give every block's pages"));
  }
  for (size_t i = 0; i < size_t{blocks} * plan->PagesPerBlock(); ++i) {
    if (pages[i] < 0) {
      return Misuse("MEMORY_PAGES",
                    absl::StrCat("pages[", i, "] is ", pages[i], ": a page index is not negative"));
    }
  }
  return CheckWhere(*this, blocks);
}

std::span<const int64_t> CallerMemory::PagesOf(uint32_t block) const {
  const size_t per_block = plan->PagesPerBlock();
  return std::span(pages).subspan(block * per_block, per_block);
}

absl::StatusOr<std::shared_ptr<const kernels::PagedPlan>> MakePagedPlan(
    const BlockLayout& layout, std::vector<kernels::PagedPlane> planes, uint32_t page_tokens) {
  const size_t wanted = size_t{layout.layers} * layout.planes;
  if (planes.size() != wanted) {
    return Misuse(
        "PLAN_PLANES",
        absl::StrCat("planes has ", planes.size(), " entries, the spec has ", layout.layers,
                     " layers of ", layout.planes, " planes: give ", wanted));
  }
  for (size_t i = 0; i < planes.size(); ++i) {
    if (planes[i].base == nullptr) {
      return Misuse("PLAN_PLANES",
                    absl::StrCat("planes[", i, "].base is null: give the tensor's address"));
    }
  }
  if (page_tokens == 0 || layout.tokens % page_tokens != 0) {
    return Misuse("PLAN_PAGE_TOKENS",
                  absl::StrCat("page_tokens ", page_tokens, " does not divide the spec's ",
                               layout.tokens, " block tokens: choose block_tokens as a multiple"));
  }
  auto plan = std::make_shared<kernels::PagedPlan>();
  plan->planes = std::move(planes);
  plan->planes_per_layer = layout.planes;
  plan->heads = layout.heads;
  plan->page_tokens = page_tokens;
  plan->block_tokens = layout.tokens;
  plan->row_data_bytes = static_cast<uint32_t>(layout.row_data_bytes);
  plan->row_bytes = static_cast<uint32_t>(layout.row_bytes);
  plan->block_bytes = layout.block_bytes;
  return plan;
}

Checksum128 CopyAndChecksum(const BlockLayout& layout, const uint8_t* from, uint8_t* to) {
  std::vector<uint8_t> digests(size_t{layout.layers} * kernels::kChecksumDigestBytes);
  for (uint32_t layer = 0; layer < layout.layers; ++layer) {
    const uint64_t at = layer * layout.layer_bytes;
    std::memcpy(to + at, from + at, layout.layer_bytes);
    kernels::ChecksumSection(to + at, layout.layer_bytes,
                             &digests[layer * kernels::kChecksumDigestBytes]);
  }
  Checksum128 checksum;
  kernels::ChecksumFromSections(digests.data(), layout.layers, layout.block_bytes,
                                checksum.bytes.data());
  return checksum;
}

Checksum128 ChecksumOf(const BlockLayout& layout, std::span<const uint8_t> block) {
  Checksum128 checksum;
  kernels::ChecksumBlock(block.data(), block.size(), layout.layer_bytes, checksum.bytes.data());
  return checksum;
}

absl::Status CheckChecksum(uint32_t block, const Checksum128& found, const Checksum128& expected) {
  if (found == expected) return absl::OkStatus();
  return Refusal(absl::StatusCode::kDataLoss, "BLOCK_CORRUPT",
                 absl::StrCat("block ", block, " arrived with checksum ", ToHex(found),
                              " instead of ", ToHex(expected), ": it counts as a miss"));
}

// ---- Staging

absl::Status StagedBlock::Get(const BlockTransfer& transfer) {
  if (there()) return absl::OkStatus();
  stored_bytes_ = transfer.layout->block_bytes;
  const bool both = transfer.codec != nullptr && transfer.memory->plan != nullptr;
  const uint64_t plain = both ? kernels::LayoutOf(*transfer.codec).plain_block_bytes : 0;
  // One buffer for both: whoever waited for the second would hold the first.
  REPRISE_ASSIGN_OR_RETURN(buffer_,
                           transfer.staging->Get(stored_bytes_ + plain, transfer.deadline));
  return absl::OkStatus();
}

// ---- Sink

VerifyingSink::VerifyingSink(BlockTransfer transfer, std::span<const Checksum128> checksums,
                             std::function<absl::Status(uint32_t)> on_block)
    : transfer_(transfer), checksums_(checksums), on_block_(std::move(on_block)) {}

absl::Status VerifyingSink::Prepare() {
  if (transfer_.memory->plan == nullptr && transfer_.codec == nullptr) return absl::OkStatus();
  return staged_.Get(transfer_);
}

std::span<uint8_t> VerifyingSink::Buffer(uint32_t i) {
  if (staged_.there()) return staged_.stored();
  return {transfer_.memory->buffers[transfer_.first + i], transfer_.layout->block_bytes};
}

absl::Status VerifyingSink::Complete(uint32_t i) {
  const std::span<uint8_t> block = Buffer(i);
  REPRISE_RETURN_IF_ERROR(Verify(i, ChecksumOf(*transfer_.layout, block)));
  if (staged_.there()) Place(i, block.data());
  return on_block_(i);
}

absl::Status VerifyingSink::Deliver(uint32_t i, std::span<const uint8_t> bytes) {
  if (bytes.size() != transfer_.layout->block_bytes) {
    return absl::InternalError(absl::StrCat("a lane delivered a block of ", bytes.size(),
                                            " bytes instead of ", transfer_.layout->block_bytes));
  }
  if (staged_.there()) {
    REPRISE_RETURN_IF_ERROR(Verify(i, ChecksumOf(*transfer_.layout, bytes)));
    Place(i, bytes.data());
  } else {
    REPRISE_RETURN_IF_ERROR(
        Verify(i, CopyAndChecksum(*transfer_.layout, bytes.data(), Buffer(i).data())));
  }
  return on_block_(i);
}

void VerifyingSink::Place(uint32_t i, const uint8_t* stored) {
  const CallerMemory& memory = *transfer_.memory;
  const uint8_t* plain = stored;
  if (transfer_.codec != nullptr) {
    uint8_t* to = memory.plan == nullptr ? memory.buffers[transfer_.first + i] : staged_.plain();
    kernels::DecodeBlock(*transfer_.codec, stored, to);
    plain = to;
  }
  if (memory.plan != nullptr) {
    kernels::ScatterBlock(*memory.plan, memory.PagesOf(transfer_.first + i), plain);
  }
}

// ---- Source

ChecksummingSource::ChecksummingSource(BlockTransfer transfer, std::span<const uint32_t> blocks,
                                       std::function<absl::Status()> check)
    : transfer_(transfer), blocks_(blocks), check_(std::move(check)) {
  checksums_.reserve(blocks.size());
}

absl::StatusOr<std::span<const uint8_t>> ChecksummingSource::Bytes(uint32_t i) {
  REPRISE_RETURN_IF_ERROR(check_());
  const CallerMemory& memory = *transfer_.memory;
  std::span<const uint8_t> block;
  if (memory.plan == nullptr && transfer_.codec == nullptr) {
    block = {memory.buffers[blocks_[i]], transfer_.layout->block_bytes};
  } else {
    REPRISE_RETURN_IF_ERROR(staged_.Get(transfer_));
    Make(i, staged_.stored().data());
    block = staged_.stored();
  }
  // A lane may ask for a block again when it falls back to another lane.
  checksums_.resize(i);
  checksums_.push_back(ChecksumOf(*transfer_.layout, block));
  return block;
}

absl::Status ChecksummingSource::Fill(uint32_t i, std::span<uint8_t> slot) {
  REPRISE_RETURN_IF_ERROR(check_());
  if (slot.size() != transfer_.layout->block_bytes) {
    return absl::InternalError(absl::StrCat("a lane has a slot of ", slot.size(),
                                            " bytes for a block of ",
                                            transfer_.layout->block_bytes));
  }
  const CallerMemory& memory = *transfer_.memory;
  checksums_.resize(i);
  if (memory.plan == nullptr && transfer_.codec == nullptr) {
    checksums_.push_back(
        CopyAndChecksum(*transfer_.layout, memory.buffers[blocks_[i]], slot.data()));
    return absl::OkStatus();
  }
  if (memory.plan != nullptr && transfer_.codec != nullptr) {
    REPRISE_RETURN_IF_ERROR(staged_.Get(transfer_));
  }
  Make(i, slot.data());
  checksums_.push_back(ChecksumOf(*transfer_.layout, slot));
  return absl::OkStatus();
}

void ChecksummingSource::Make(uint32_t i, uint8_t* stored) {
  const CallerMemory& memory = *transfer_.memory;
  const uint8_t* plain = nullptr;
  if (memory.plan == nullptr) {
    plain = memory.buffers[blocks_[i]];
  } else {
    uint8_t* to = transfer_.codec == nullptr ? stored : staged_.plain();
    kernels::GatherBlock(*memory.plan, memory.PagesOf(blocks_[i]), to);
    plain = to;
  }
  if (transfer_.codec != nullptr) kernels::EncodeBlock(*transfer_.codec, plain, stored);
}

}  // namespace reprise::client
