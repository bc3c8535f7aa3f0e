#include "cluster/lanes/tcp/call_server.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes::tcp {
namespace {

absl::StatusOr<std::shared_ptr<const void>> Ask(const TcpGuards::Admit& admit) {
  return admit ? admit() : std::shared_ptr<const void>();
}

absl::Status Nonsense(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tcp lane: ", what));
}

}  // namespace

absl::Status CallServer::Serve(const Header& header) {
  call_end_ = MonotonicDeadline::After(limits::kByteStreamAgeMax);
  const absl::Status status = ServeCall(header);
  staging_.reset();
  return status;
}

absl::Status CallServer::ServeCall(const Header& header) {
  if (header.is_block()) return Nonsense("a block came outside of a call");
  if (header.is_verb()) return ServeVerb(header);
  REPRISE_ASSIGN_OR_RETURN(const Message message,
                           options_.socket->ReceiveMessage(header, FrameEnd()));
  if (const Read* read = std::get_if<Read>(&message)) return ServeRead(*read);
  if (const Write* write = std::get_if<Write>(&message)) return ServeWrite(*write);
  return Nonsense("a message came that begins no call");
}

absl::StatusOr<CallServer::Opened> CallServer::Open(const Read& request) {
  if (request.blocks == 0 || request.blocks > limits::kPromptBlocksMax) {
    return Nonsense(absl::StrCat("blocks = ", request.blocks, " is out of range"));
  }
  Opened opened;
  opened.tickets.resize(2);
  REPRISE_ASSIGN_OR_RETURN(opened.tickets[0], Ask(options_.guards->read));
  REPRISE_ASSIGN_OR_RETURN(
      opened.blocks,
      options_.host->OpenRead(options_.attachment, request.lease, request.first, request.blocks));
  bool in_file = false;
  for (size_t i = 0; i < opened.blocks.size(); ++i) {
    REPRISE_RETURN_IF_ERROR(CheckBlockBytes(request.first + static_cast<uint32_t>(i),
                                            opened.blocks[i].bytes.size(), request.block_bytes));
    in_file = in_file || opened.blocks[i].memory == MemoryKind::kFile;
  }
  if (in_file) {
    REPRISE_ASSIGN_OR_RETURN(opened.tickets[1], Ask(options_.guards->file));
  }
  return opened;
}

absl::Status CallServer::ServeRead(const Read& request) {
  absl::StatusOr<Opened> opened = Open(request);
  if (!opened.ok()) return Answer(opened.status());
  uint32_t block = request.first;
  for (PinnedBytes& one : opened->blocks) {
    bool told = false;
    REPRISE_RETURN_IF_ERROR(one.memory == MemoryKind::kHost
                                ? options_.socket->SendBlock(block, one.bytes, FrameEnd())
                                : SendStaged(block, one, told));
    if (told) return absl::OkStatus();
    options_.host->ReadOut(1, one.bytes.size());
    one.pin.reset();
    ++block;
  }
  return absl::OkStatus();
}

absl::Status CallServer::SendStaged(uint32_t block, const PinnedBytes& bytes, bool& told) {
  for (uint64_t at = 0; at < bytes.bytes.size();) {
    const std::span<uint8_t> staged = Staging(bytes.bytes.size() - at);
    const absl::Status copied =
        options_.host->CopyToHost(bytes.bytes.subspan(at, staged.size()), staged);
    // In the middle of a block there is no place for a word: the connection ends, and the caller
    // asks another lane.
    if (!copied.ok() && at > 0) return copied;
    if (!copied.ok()) {
      told = true;
      return Answer(copied);
    }
    if (at == 0) {
      REPRISE_RETURN_IF_ERROR(options_.socket->BeginBlock(block, bytes.bytes.size(), FrameEnd()));
    }
    REPRISE_RETURN_IF_ERROR(options_.socket->SendBlockPart(staged, FrameEnd()));
    at += staged.size();
  }
  return absl::OkStatus();
}

absl::Status CallServer::ServeWrite(const Write& request) {
  const absl::StatusOr<std::shared_ptr<const void>> ticket = Ask(options_.guards->write);
  absl::Status refused = ticket.status();
  bool told = false;
  while (true) {
    if (!refused.ok() && !std::exchange(told, true)) REPRISE_RETURN_IF_ERROR(Answer(refused));
    REPRISE_ASSIGN_OR_RETURN(const Header header, options_.socket->ReceiveHeader(FrameEnd()));
    if (!header.is_block()) {
      if (!header.is_message()) return Nonsense("a verb came in the middle of a write");
      REPRISE_ASSIGN_OR_RETURN(const Message message,
                               options_.socket->ReceiveMessage(header, FrameEnd()));
      if (!std::holds_alternative<WriteEnd>(message)) return Nonsense("a write did not end");
      return told ? absl::OkStatus() : Answer(absl::OkStatus());
    }
    if (refused.ok() && header.body_bytes != request.block_bytes) {
      refused = CheckBlockBytes(header.block, header.body_bytes, request.block_bytes);
    }
    REPRISE_RETURN_IF_ERROR(refused.ok() ? Take(header, request.reservation, refused)
                                         : Discard(header.body_bytes));
  }
}

absl::Status CallServer::ServeVerb(const Header& header) {
  REPRISE_ASSIGN_OR_RETURN(const std::string request,
                           options_.socket->ReceiveBody(header, FrameEnd()));
  const absl::StatusOr<std::string> answer =
      options_.verbs->Answer(options_.attachment, header.verb(), request);
  if (!answer.ok()) return Answer(answer.status());
  return options_.socket->SendAnswer(header.verb(), *answer, FrameEnd());
}

absl::Status CallServer::Take(const Header& header, ReservationId reservation,
                              absl::Status& refused) {
  absl::StatusOr<PinnedSlot> slot =
      options_.host->OpenWrite(options_.attachment, reservation, header.block);
  refused = slot.status();
  if (refused.ok()) refused = CheckBlockBytes(header.block, slot->bytes.size(), header.body_bytes);
  if (!refused.ok()) return Discard(header.body_bytes);
  REPRISE_RETURN_IF_ERROR(slot->memory == MemoryKind::kHost
                              ? options_.socket->ReceiveBytes(slot->bytes, FrameEnd())
                              : ReceiveStaged(*slot, refused));
  slot->pin.reset();
  if (refused.ok()) {
    refused =
        options_.host->Written(options_.attachment, reservation, header.block, header.body_bytes);
  }
  return absl::OkStatus();
}

absl::Status CallServer::ReceiveStaged(const PinnedSlot& slot, absl::Status& refused) {
  for (uint64_t at = 0; at < slot.bytes.size();) {
    const std::span<uint8_t> staged = Staging(slot.bytes.size() - at);
    REPRISE_RETURN_IF_ERROR(options_.socket->ReceiveBytes(staged, FrameEnd()));
    if (refused.ok()) {
      refused = options_.host->CopyToDevice(staged, slot.bytes.subspan(at, staged.size()));
    }
    at += staged.size();
  }
  return absl::OkStatus();
}

absl::Status CallServer::Discard(uint64_t bytes) {
  while (bytes > 0) {
    const std::span<uint8_t> staged = Staging(bytes);
    REPRISE_RETURN_IF_ERROR(options_.socket->ReceiveBytes(staged, FrameEnd()));
    bytes -= staged.size();
  }
  return absl::OkStatus();
}

std::span<uint8_t> CallServer::Staging(uint64_t bytes) {
  if (staging_ == nullptr) staging_.reset(new uint8_t[limits::kStreamChunkBytes]);
  return {staging_.get(), std::min<uint64_t>(bytes, limits::kStreamChunkBytes)};
}

}  // namespace reprise::lanes::tcp
