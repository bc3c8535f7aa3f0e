// Whatever a frame of a disk's journal has is no message or a batch, the same when it is written
// and read again.

#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <utility>

#include "proto/types/status_macros.h"
#include "service/journal/kept_fold.h"
#include "service/journal/record_codec.h"

namespace {

template <typename List>
void Append(List& to, List from) {
  for (auto& one : from) to.push_back(std::move(one));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise::shard;
  // A spec's text that is no UTF-8 is refused and logged; here that is the normal case.
  static google::protobuf::LogHandler* const silent = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(silent);
  const auto decoded = DecodeBatch({data, size});
  if (!decoded) return 0;
  KeptBatch again;
  const absl::Status encoded = EncodeBatch(decoded->batch, [&](absl::string_view message) {
    REPRISE_CHECK(!again.closed);
    auto part = DecodeBatch({reinterpret_cast<const uint8_t*>(message.data()), message.size()});
    REPRISE_CHECK(part.has_value() && part->skipped == 0);
    Append(again.spaces, std::move(part->batch.spaces));
    Append(again.blocks, std::move(part->batch.blocks));
    Append(again.gone, std::move(part->batch.gone));
    Append(again.claims, std::move(part->batch.claims));
    again.closed = part->batch.closed;
    return absl::OkStatus();
  });
  REPRISE_CHECK(encoded.ok());
  REPRISE_CHECK(again == decoded->batch);

  KeptFold fold;
  fold.Add(*decoded);
  fold.Add(*decoded);
  const KeptContents contents = fold.Take();
  REPRISE_CHECK(contents.blocks.size() <= decoded->batch.blocks.size());
  REPRISE_CHECK(contents.spaces.size() <= decoded->batch.spaces.size());
  return 0;
}
