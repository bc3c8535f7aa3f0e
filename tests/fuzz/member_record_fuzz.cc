// Whatever lies in etcd is a refusal or a valid member, the same when it is written and read again.

#include <cstdint>

#include "cluster/membership/etcd/member_record.h"
#include "cluster/membership/members_file.h"
#include "proto/types/status_macros.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reprise::cluster;
  const auto record =
      ParseRecord("shard-0", absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!record.ok()) {
    REPRISE_CHECK(!record.status().message().empty());
    return 0;
  }
  REPRISE_CHECK(ValidateMember(record->member).ok());
  const auto again = ParseRecord("shard-0", ToRecord(*record));
  REPRISE_CHECK(again.ok());
  REPRISE_CHECK(again->member == record->member && again->leaving == record->leaving);
  return 0;
}
