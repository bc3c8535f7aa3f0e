// Batches as reprise.disk.v1.Batch messages, and back.
//
// Both go record by record, so that neither a frame full of empty records nor a whole disk's blocks
// take more memory than what is kept of them.
//
// Thread safety: free functions without shared state.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "service/journal/kept_records.h"

namespace reprise::shard {

// Gives `sink` messages that say together, and in this order, what `batch` does: each of about
// kJournalMessageBytes at most, or one record; none when it says nothing. The first failure of
// `sink` ends it.
absl::Status EncodeBatch(const KeptBatch& batch,
                         absl::FunctionRef<absl::Status(absl::string_view)> sink);

struct DecodedBatch {
  KeptBatch batch;
  uint64_t skipped = 0;  // records that are not known, or make no sense
};

// nullopt: it is no message. The slot of a block that makes no sense is `gone`: what was said of it
// before is not so any more.
std::optional<DecodedBatch> DecodeBatch(std::span<const uint8_t> message);

}  // namespace reprise::shard
