// Any CacheSpec message is refused or has a layout, a fingerprint and a message that reads back the
// same.

#include <google/protobuf/stubs/logging.h>

#include <cstdint>

#include "proto/types/cache_spec.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"
#include "reprise/v1/common.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Text that is no UTF-8 is refused and logged; here that is the normal case.
  static google::protobuf::LogHandler* const silent = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(silent);
  reprise::v1::CacheSpec message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  const reprise::CacheSpec spec = reprise::wire::FromMessage(message);
  if (!reprise::ValidateSpec(spec).ok()) return 0;
  const reprise::BlockLayout layout = reprise::LayoutOf(spec);
  REPRISE_CHECK(layout.block_bytes >= reprise::limits::kBlockBytesMin);
  REPRISE_CHECK(layout.block_bytes <= reprise::limits::kBlockBytesMax);
  REPRISE_CHECK(layout.block_bytes == layout.layers * layout.layer_bytes);
  const reprise::CacheSpec again = reprise::wire::FromMessage(reprise::wire::ToMessage(spec));
  REPRISE_CHECK(!reprise::FirstDifference(spec, again).has_value());
  REPRISE_CHECK(reprise::FingerprintOf(spec) == reprise::FingerprintOf(again));
  return 0;
}
