// The tcp lane's frames: what a peer sends is refused, or has one meaning.

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "cluster/lanes/tcp/tcp_wire.h"
#include "proto/types/status_macros.h"

using namespace reprise::lanes::tcp;

namespace {

// What is no message; nullopt: nothing that is known.
std::optional<absl::StatusOr<Header>> EncodedAgain(const Header& header) {
  if (header.is_block()) return DecodeHeader(EncodeBlockHeader(header.block, header.body_bytes));
  if (header.is_verb()) return DecodeHeader(EncodeVerbHeader(header.verb(), header.body_bytes));
  if (header.is_answer()) return DecodeHeader(EncodeAnswerHeader(header.verb(), header.body_bytes));
  return std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> frame(data, size);
  if (size < kHeaderBytes) return 0;
  const absl::StatusOr<Header> header = DecodeHeader(frame.first<kHeaderBytes>());
  if (!header.ok()) return 0;
  if (!header->is_message()) {
    const auto again = EncodedAgain(*header);
    if (!again.has_value()) return 0;
    REPRISE_CHECK(again->ok() && (*again)->type == header->type &&
                  (*again)->block == header->block && (*again)->body_bytes == header->body_bytes);
    // Its body is none of this wire's messages.
    REPRISE_CHECK(!DecodeBody(*header, frame.subspan(kHeaderBytes)).ok());
    return 0;
  }
  const absl::StatusOr<Message> message = DecodeBody(*header, frame.subspan(kHeaderBytes));
  if (!message.ok()) return 0;
  const std::string encoded = Encode(*message);
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(encoded.data()),
                                       encoded.size());
  const absl::StatusOr<Header> again = DecodeHeader(bytes.first<kHeaderBytes>());
  REPRISE_CHECK(again.ok() && again->body_bytes + kHeaderBytes == bytes.size());
  const absl::StatusOr<Message> same = DecodeBody(*again, bytes.subspan(kHeaderBytes));
  REPRISE_CHECK(same.ok() && same->index() == message->index() && Encode(*same) == encoded);
  // As many bytes as came, but for a status that said nothing.
  REPRISE_CHECK(encoded.size() <= size);
  return 0;
}
