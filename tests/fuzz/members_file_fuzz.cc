// Any text is a list of valid members or a refusal.

#include <cstdint>

#include "cluster/membership/members_file.h"
#include "proto/types/status_macros.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto members = reprise::cluster::ParseMembersFile(
      absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!members.ok()) {
    REPRISE_CHECK(!members.status().message().empty());
    return 0;
  }
  for (const auto& member : *members) REPRISE_CHECK(reprise::cluster::ValidateMember(member).ok());
  return 0;
}
