#include "service/journal/record_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "proto/wire/spec.h"
#include "reprise/disk/v1/journal.pb.h"

namespace reprise::shard {
namespace {

namespace v1 = disk::v1;
using google::protobuf::MessageLite;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

// ---- Writing

template <size_t N>
std::string ToBytes(const std::array<uint8_t, N>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

void Fill(SlotRef slot, v1::Slot& message) {
  message.set_extent(slot.extent);
  message.set_index(slot.index);
}

void Fill(const KeptSpace& space, v1::Space& message) {
  message.set_number(space.number);
  message.set_tenant(space.tenant.name);
  message.set_fingerprint(ToBytes(space.fingerprint.bytes));
  *message.mutable_spec() = wire::ToMessage(space.spec);
  message.set_block_bytes(space.shape.block_bytes);
  message.set_section_bytes(space.shape.section_bytes);
}

// `session`: what an unset one stands for.
void Fill(const KeptBlock& block, const std::string& session, v1::Block& message) {
  message.Clear();  // and keeps its memory
  message.set_space(block.space);
  Fill(block.slot, *message.mutable_slot());
  message.set_key(block.key.bytes.data(), block.key.bytes.size());
  if (block.parent) message.set_parent(block.parent->bytes.data(), block.parent->bytes.size());
  message.set_checksum(block.checksum.bytes.data(), block.checksum.bytes.size());
  message.set_depth(block.depth);
  message.set_token_position(block.token_position);
  if (block.session_id != session) message.set_session_id(block.session_id);
  message.mutable_token_ids()->Add(block.token_ids.begin(), block.token_ids.end());
}

void Fill(const KeptClaim& claim, v1::Claim& message) {
  message.set_space(claim.space);
  message.set_name(claim.name);
  message.set_rank(claim.rank);
  message.set_ends_unix_ms(absl::ToUnixMillis(claim.ends));
  if (claim.rests) message.set_rests(ToBytes(claim.rests->bytes));
  message.set_ahead(PackKeys(claim.ahead));
}

class Messages {
 public:
  explicit Messages(absl::FunctionRef<absl::Status(absl::string_view)> sink) : sink_(sink) {}

  // Whether the next record is a message's first.
  bool empty() const { return message_.empty(); }

  // `field`: of the batch.
  absl::Status Add(int field, const MessageLite& record) {
    std::array<uint8_t, 10> begin;  // two varints of at most five bytes
    uint8_t* end = CodedOutputStream::WriteVarint32ToArray(
        WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED), begin.data());
    end =
        CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(record.ByteSizeLong()), end);
    message_.append(begin.data(), end);
    record.AppendPartialToString(&message_);
    return message_.size() < limits::kJournalMessageBytes ? absl::OkStatus() : Flush();
  }
  absl::Status End(bool closed) {
    v1::Batch end;
    end.set_closed(closed);
    end.AppendToString(&message_);
    return message_.empty() ? absl::OkStatus() : Flush();
  }

 private:
  absl::Status Flush() {
    absl::Status status = sink_(message_);
    message_.clear();
    return status;
  }

  const absl::FunctionRef<absl::Status(absl::string_view)> sink_;
  std::string message_;
};

// ---- Reading

template <size_t N>
bool Take(const std::string& bytes, std::array<uint8_t, N>& to) {
  if (bytes.size() != N) return false;
  std::memcpy(to.data(), bytes.data(), N);
  return true;
}

// Empty: none.
bool Take(const std::string& bytes, std::optional<BlockKey>& to) {
  if (bytes.empty()) return true;
  return Take(bytes, to.emplace().bytes);
}

SlotRef SlotOf(const v1::Slot& message) {
  return {.extent = message.extent(), .index = message.index()};
}

std::optional<KeptSpace> SpaceOf(const v1::Space& message) {
  KeptSpace space{
      .number = message.number(),
      .tenant = {message.tenant()},
      .fingerprint = {},
      .spec = wire::FromMessage(message.spec()),
      .shape = {.block_bytes = message.block_bytes(), .section_bytes = message.section_bytes()}};
  const bool sense = Take(message.fingerprint(), space.fingerprint.bytes) &&
                     space.tenant.name.size() <= limits::kTenantBytesMax &&
                     ValidateSpec(space.spec).ok() && space.shape.section_bytes > 0 &&
                     space.shape.section_bytes <= space.shape.block_bytes &&
                     space.shape.block_bytes <= limits::kBlockBytesMax;
  if (!sense) return std::nullopt;
  return space;
}

std::optional<KeptBlock> BlockOf(const v1::Block& message, const std::string& session) {
  KeptBlock block{.space = message.space(),
                  .slot = SlotOf(message.slot()),
                  .key = {},
                  .parent = {},
                  .checksum = {},
                  .depth = message.depth(),
                  .token_position = message.token_position(),
                  .session_id = {},
                  .token_ids = {}};
  const bool sense = message.has_slot() && Take(message.key(), block.key.bytes) &&
                     Take(message.parent(), block.parent) &&
                     Take(message.checksum(), block.checksum.bytes) &&
                     session.size() <= limits::kNameBytesMax &&
                     message.token_ids_size() <= static_cast<int>(limits::kBlockTokensMax);
  if (!sense) return std::nullopt;
  block.session_id = session;
  block.token_ids.assign(message.token_ids().begin(), message.token_ids().end());
  return block;
}

std::optional<KeptClaim> ClaimOf(const v1::Claim& message) {
  auto ahead = UnpackKeys(message.ahead(), "ahead");
  KeptClaim claim{.space = message.space(),
                  .name = message.name(),
                  .rank = static_cast<uint8_t>(message.rank()),
                  .ends = absl::FromUnixMillis(message.ends_unix_ms()),
                  .rests = {},
                  .ahead = {}};
  const bool sense = ahead.ok() && Take(message.rests(), claim.rests) &&
                     claim.rank == message.rank() && claim.name.size() <= limits::kNameBytesMax;
  if (!sense) return std::nullopt;
  claim.ahead = *std::move(ahead);
  return claim;
}

// One message's records, one after another.
class Records {
 public:
  // False: it is no message.
  bool Read(std::span<const uint8_t> message) {
    CodedInputStream input(message.data(), static_cast<int>(message.size()));
    while (const uint32_t tag = input.ReadTag()) {
      uint32_t length = 0;
      uint64_t number = 0;
      if (IsRecord(tag)) {
        if (!input.ReadVarint32(&length)) return false;
        const auto at = static_cast<size_t>(input.CurrentPosition());
        if (length > message.size() - at) return false;
        if (!Record(WireFormatLite::GetTagFieldNumber(tag), message.subspan(at, length))) {
          ++decoded_.skipped;
        }
        input.Skip(static_cast<int>(length));
      } else if (tag == kClosedTag) {
        if (!input.ReadVarint64(&number)) return false;
        decoded_.batch.closed = number != 0;
      } else {
        if (!WireFormatLite::SkipField(&input, tag)) return false;
        ++decoded_.skipped;
      }
    }
    return input.ConsumedEntireMessage();
  }

  DecodedBatch Take() { return std::move(decoded_); }

 private:
  static constexpr uint32_t kClosedTag =
      WireFormatLite::MakeTag(v1::Batch::kClosedFieldNumber, WireFormatLite::WIRETYPE_VARINT);

  static bool IsRecord(uint32_t tag) {
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    return WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED &&
           (field == v1::Batch::kSpacesFieldNumber || field == v1::Batch::kBlocksFieldNumber ||
            field == v1::Batch::kGoneFieldNumber || field == v1::Batch::kClaimsFieldNumber);
  }

  static bool Parse(std::span<const uint8_t> bytes, MessageLite& message) {
    return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  }

  // False: it makes no sense.
  bool Record(int field, std::span<const uint8_t> bytes) {
    switch (field) {
      case v1::Batch::kSpacesFieldNumber: {
        v1::Space space;
        return Parse(bytes, space) && Keep(SpaceOf(space), decoded_.batch.spaces);
      }
      case v1::Batch::kBlocksFieldNumber:
        return Parse(bytes, block_) && Block();
      case v1::Batch::kGoneFieldNumber: {
        v1::Slot slot;
        return Parse(bytes, slot) && Keep(std::optional(SlotOf(slot)), decoded_.batch.gone);
      }
      default: {
        v1::Claim claim;
        return Parse(bytes, claim) && Keep(ClaimOf(claim), decoded_.batch.claims);
      }
    }
  }

  bool Block() {
    if (block_.has_session_id()) session_ = block_.session_id();
    if (Keep(BlockOf(block_, session_), decoded_.batch.blocks)) return true;
    if (block_.has_slot()) decoded_.batch.gone.push_back(SlotOf(block_.slot()));
    return false;
  }

  template <typename Kept>
  static bool Keep(std::optional<Kept> record, std::vector<Kept>& to) {
    if (!record) return false;
    to.push_back(*std::move(record));
    return true;
  }

  DecodedBatch decoded_;
  v1::Block block_;      // keeps its memory from one to the next
  std::string session_;  // of the block before
};

}  // namespace

absl::Status EncodeBatch(const KeptBatch& batch,
                         absl::FunctionRef<absl::Status(absl::string_view)> sink) {
  static_assert(limits::kJournalMessageBytes         // a message that just does not end yet,
                    + limits::kPromptBlocksMax * 32  // the longest record, a claim, in keys
                    + (64 << 10) <                   // and otherwise
                limits::kJournalFrameBytesMax);
  Messages messages(sink);
  for (const KeptSpace& space : batch.spaces) {
    v1::Space message;
    Fill(space, message);
    REPRISE_RETURN_IF_ERROR(messages.Add(v1::Batch::kSpacesFieldNumber, message));
  }
  const std::string none;
  const std::string* session = &none;
  v1::Block block_message;
  for (const KeptBlock& block : batch.blocks) {
    if (messages.empty()) session = &none;
    Fill(block, *session, block_message);
    REPRISE_RETURN_IF_ERROR(messages.Add(v1::Batch::kBlocksFieldNumber, block_message));
    session = &block.session_id;
  }
  for (const SlotRef slot : batch.gone) {
    v1::Slot message;
    Fill(slot, message);
    REPRISE_RETURN_IF_ERROR(messages.Add(v1::Batch::kGoneFieldNumber, message));
  }
  for (const KeptClaim& claim : batch.claims) {
    v1::Claim message;
    Fill(claim, message);
    REPRISE_RETURN_IF_ERROR(messages.Add(v1::Batch::kClaimsFieldNumber, message));
  }
  return messages.End(batch.closed);
}

std::optional<DecodedBatch> DecodeBatch(std::span<const uint8_t> message) {
  Records records;
  if (!records.Read(message)) return std::nullopt;
  return records.Take();
}

}  // namespace reprise::shard
