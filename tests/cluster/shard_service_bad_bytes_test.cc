// What a shard answers to reads and writes that no client of ours sends: the documented status and
// reason, and a shard in which nothing changed.

#include <gtest/gtest.h>

#include "cluster/lanes/stream/raw_call.h"
#include "tests/cluster/bad_input.h"

namespace reprise::testing {
namespace {

// ---- Read

absl::Status ReadWith(Scene& scene, const std::function<void(v1::ReadRequest&)>& change) {
  v1::ReadRequest request;
  request.set_attachment_id(scene.attachment.id());
  request.set_lease_id(scene.lease);
  request.set_first_block(1);
  change(request);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = scene.stub->Read(&context, request);
  v1::ReadResponse response;
  while (stream->Read(&response)) ADD_FAILURE() << "bytes came";
  return wire::FromGrpcStatus(stream->Finish());
}

// A message that is no protobuf at all.
absl::Status SendGarbage(Scene& scene, const char* method) {
  grpc::ByteBuffer response;
  lanes::RawCall call(wire::MakeChannel(scene.shard.address()), method, Soon());
  const grpc::Slice garbage(std::string("\xff\xff\xff\xff garbage \x07"));
  call.WriteLast(grpc::ByteBuffer(&garbage, 1));
  call.StartRead(&response);
  call.FinishRead();
  return call.Finish();
}

const BadInput kRead[] = {
    {"ReadUnattached",
     [](Scene& s) { return ReadWith(s, [](auto& r) { r.set_attachment_id(kUnknown); }); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"ReadUnknownLease",
     [](Scene& s) { return ReadWith(s, [](auto& r) { r.set_lease_id(kUnknown); }); },
     StatusCode::kNotFound, "LEASE_UNKNOWN"},
    {"ReadUnsetLease", [](Scene& s) { return ReadWith(s, [](auto& r) { r.clear_lease_id(); }); },
     StatusCode::kNotFound, "LEASE_UNKNOWN"},
    {"ReadOthersLease",
     [](Scene& s) {
       const RawAttachment other(*s.stub);
       return ReadWith(s, [&](auto& r) { r.set_attachment_id(other.id()); });
     },
     StatusCode::kNotFound, "LEASE_UNKNOWN"},
    {"ReadBeforeTheLease",
     [](Scene& s) { return ReadWith(s, [](auto& r) { r.set_first_block(0); }); },
     StatusCode::kOutOfRange, "BLOCK_NOT_LEASED"},
    {"ReadBeyondTheLease",
     [](Scene& s) { return ReadWith(s, [](auto& r) { r.set_first_block(4); }); },
     StatusCode::kOutOfRange, "BLOCK_NOT_LEASED"},
    {"ReadTooManyBlocks",
     [](Scene& s) { return ReadWith(s, [](auto& r) { r.set_blocks(0xffff'ffff); }); },
     StatusCode::kOutOfRange, "BLOCK_NOT_LEASED"},
    {"ReadGarbage", [](Scene& s) { return SendGarbage(s, "/reprise.v1.ShardService/Read"); },
     StatusCode::kInvalidArgument, "MESSAGE_DAMAGED"},
};

// ---- Write

using WriteFill = std::function<void(Scene&, std::vector<v1::WriteRequest>&)>;

absl::Status WriteWith(Scene& scene, const WriteFill& fill) {
  std::vector<v1::WriteRequest> requests(1);
  requests[0].set_attachment_id(scene.attachment.id());
  requests[0].set_reservation_id(scene.reservation);
  requests[0].set_data(std::string(scene.block_bytes / 2, 'd'));
  fill(scene, requests);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::WriteResponse response;
  const auto stream = scene.stub->Write(&context, &response);
  for (const v1::WriteRequest& request : requests) {
    if (!stream->Write(request)) break;
  }
  stream->WritesDone();
  return wire::FromGrpcStatus(stream->Finish());
}

BadInput BadWrite(const char* name, WriteFill fill, StatusCode code, const char* reason) {
  return {name, [fill](Scene& scene) { return WriteWith(scene, fill); }, code, reason};
}

const BadInput kWrite[] = {
    BadWrite(
        "WriteNothing", [](Scene&, auto& w) { w.clear(); }, StatusCode::kInvalidArgument,
        "WRITE_EMPTY"),
    BadWrite(
        "WriteUnsetAttachment", [](Scene&, auto& w) { w[0].clear_attachment_id(); },
        StatusCode::kInvalidArgument, "ATTACHMENT_UNSET"),
    BadWrite(
        "WriteUnattached", [](Scene&, auto& w) { w[0].set_attachment_id(kUnknown); },
        StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"),
    BadWrite(
        "WriteUnknownReservation", [](Scene&, auto& w) { w[0].set_reservation_id(kUnknown); },
        StatusCode::kNotFound, "RESERVATION_UNKNOWN"),
    BadWrite(
        "WriteNotGranted", [](Scene&, auto& w) { w[0].set_block(3); },
        StatusCode::kFailedPrecondition, "BLOCK_NOT_GRANTED"),
    BadWrite(
        "WriteEmptyData", [](Scene&, auto& w) { w[0].clear_data(); }, StatusCode::kInvalidArgument,
        "DATA_EMPTY"),
    BadWrite(
        "WriteLargeChunk",
        [](Scene&, auto& w) { w[0].set_data(std::string(limits::kStreamChunkBytesMax + 1, 'd')); },
        StatusCode::kInvalidArgument, "DATA_TOO_LARGE"),
    BadWrite(
        "WriteOversized",
        [](Scene&, auto& w) { w[0].set_data(std::string(limits::kMessageBytesMax, 'd')); },
        StatusCode::kResourceExhausted, ""),
    BadWrite(
        "WriteStartsLate", [](Scene&, auto& w) { w[0].set_offset_bytes(64); },
        StatusCode::kInvalidArgument, "WRITE_OUT_OF_ORDER"),
    BadWrite(
        "WriteBeyondTheBlock",
        [](Scene& s, auto& w) { w[0].set_data(std::string(s.block_bytes + 1, 'd')); },
        StatusCode::kInvalidArgument, "BLOCK_OVERFLOW"),
    BadWrite(
        "WriteHugeOffset",
        [](Scene&, auto& w) {
          w.push_back(w[0]);
          w[1].set_offset_bytes(~uint64_t{0});
        },
        StatusCode::kInvalidArgument, "WRITE_OUT_OF_ORDER"),
    BadWrite(
        "WriteHalfABlock", [](Scene&, auto&) {}, StatusCode::kInvalidArgument, "BLOCK_INCOMPLETE"),
    BadWrite(
        "WriteLeavesABlockHalf",
        [](Scene&, auto& w) {
          w.push_back(w[0]);
          w[1].set_block(1);
        },
        StatusCode::kInvalidArgument, "WRITE_OUT_OF_ORDER"),
    BadWrite(
        "WriteMixesReservations",
        [](Scene& s, auto& w) {
          w.push_back(w[0]);
          w[1].set_offset_bytes(s.block_bytes / 2);
          w[1].set_reservation_id(kUnknown);
        },
        StatusCode::kInvalidArgument, "WRITE_MIXED"),
    {"WriteGarbage", [](Scene& s) { return SendGarbage(s, "/reprise.v1.ShardService/Write"); },
     StatusCode::kInvalidArgument, "MESSAGE_DAMAGED"},
    {"WriteCancelled",
     [](Scene& s) {
       grpc::ClientContext context;
       v1::WriteResponse response;
       const auto stream = s.stub->Write(&context, &response);
       v1::WriteRequest request;
       request.set_attachment_id(s.attachment.id());
       request.set_reservation_id(s.reservation);
       request.set_data("d");
       stream->Write(request);
       context.TryCancel();
       return wire::FromGrpcStatus(stream->Finish());
     },
     StatusCode::kCancelled, ""},
};

INSTANTIATE_TEST_SUITE_P(Read, BadInputTest, ::testing::ValuesIn(kRead), NameOf);
INSTANTIATE_TEST_SUITE_P(Write, BadInputTest, ::testing::ValuesIn(kWrite), NameOf);

// ---- Time runs out

TEST(ExpiryTest, AnExpiredLeaseReadsNothingAndItsBlocksStay) {
  Scene scene;
  scene.clock.Advance(absl::Seconds(2));
  EXPECT_EQ(RefusalReason(ReadWith(scene, [](auto&) {})), "LEASE_UNKNOWN");
  EXPECT_EQ(scene.shard.engine().Describe(Tenant{"default"}).leases, 0u);
  EXPECT_EQ(scene.shard.engine().Describe(Tenant{"default"}).blocks, 4u);
  EXPECT_EQ(scene.shard.engine().CheckInvariants(), absl::OkStatus());
}

TEST(ExpiryTest, ASilentAttachmentEndsWithAllThatItHeld) {
  Scene scene;
  scene.clock.Advance(limits::kKeepAliveInterval * (limits::kKeepAlivesMissedMax + 1));
  EXPECT_TRUE(scene.shard.AwaitIdle());
  EXPECT_EQ(RefusalReason(ReadWith(scene, [](auto&) {})), "ATTACHMENT_UNKNOWN");
  EXPECT_EQ(scene.shard.engine().CheckInvariants(), absl::OkStatus());
}

}  // namespace
}  // namespace reprise::testing
