#include "proto/wire/address.h"

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace reprise::wire {

std::string HostOf(absl::string_view host_port) {
  const size_t colon = host_port.rfind(':');
  if (colon == absl::string_view::npos) return "";
  absl::string_view host = host_port.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return std::string(host);
}

std::string HostOfPeer(absl::string_view peer) {
  if (!absl::ConsumePrefix(&peer, "ipv4:") && !absl::ConsumePrefix(&peer, "ipv6:")) return "";
  // An address is what a URI may hold but for the brackets and a zone's per cent sign.
  return HostOf(absl::StrReplaceAll(
      peer, {{"%5B", "["}, {"%5D", "]"}, {"%5b", "["}, {"%5d", "]"}, {"%25", "%"}}));
}

}  // namespace reprise::wire
