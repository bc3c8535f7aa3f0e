// The view lane's messages: what a peer sends is refused, or has one meaning.

#include <cstdint>
#include <span>
#include <string>

#include "cluster/lanes/view/view_wire.h"
#include "proto/types/status_macros.h"

namespace {

using namespace reprise::lanes::view;

absl::StatusOr<Message> Decode(std::span<const uint8_t> frame) {
  if (frame.size() < kHeaderBytes) return absl::InvalidArgumentError("short");
  const absl::StatusOr<Header> header = DecodeHeader(frame.first<kHeaderBytes>());
  if (!header.ok()) return header.status();
  return DecodeBody(*header, frame.subspan(kHeaderBytes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<Message> message = Decode({data, size});
  if (!message.ok()) return 0;
  const std::string frame = Encode(*message);
  const absl::StatusOr<Message> again =
      Decode({reinterpret_cast<const uint8_t*>(frame.data()), frame.size()});
  REPRISE_CHECK(again.ok() && again->index() == message->index() && Encode(*again) == frame);
  // As many bytes as came, but for a status that said nothing.
  REPRISE_CHECK(frame.size() <= size);
  return 0;
}
