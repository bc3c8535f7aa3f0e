// What a shard's PeerService answers to requests that no peer of ours sends: the documented status
// and reason, and a shard in which nothing changed.
#include <gtest/gtest.h>

#include "reprise/v1/peer.grpc.pb.h"
#include "tests/cluster/bad_input.h"
#include "tests/cluster/nccl_shard.h"

namespace reprise::testing {
namespace {

constexpr uint64_t kLink = 77;
constexpr uint64_t kForeignLink = 78;
using PeerStub = v1::PeerService::Stub;

// A scene, with one link of its attachment's own and one of another.
class PeerScene {
 public:
  PeerScene() : scene(serving.Configure()) {
    EXPECT_EQ(Connect(attachment(), kLink), absl::OkStatus());
    EXPECT_EQ(Connect(stranger.id(), kForeignLink), absl::OkStatus());
  }

  uint64_t attachment() const { return scene.attachment.id(); }

  template <typename Request, typename Response>
  absl::Status Unary(grpc::Status (PeerStub::*verb)(grpc::ClientContext*, const Request&,
                                                    Response*),
                     const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return wire::FromGrpcStatus((stub.get()->*verb)(&context, request, response));
  }

  absl::Status Connect(uint64_t attachment_id, uint64_t link, size_t unique_id_bytes = 128) {
    v1::NcclConnectRequest request;
    request.set_attachment_id(attachment_id);
    request.set_link_id(link);
    request.set_unique_id(std::string(unique_id_bytes, 'u'));
    v1::NcclConnectResponse response;
    return Unary(&PeerStub::NcclConnect, request, &response);
  }

  // The next group of the own link: a read of the leased blocks, changed by `change`. What the
  // answer says of the blocks counts as its status.
  absl::Status Open(const std::function<void(v1::NcclOpenRequest&)>& change) {
    v1::NcclOpenRequest request;
    request.set_attachment_id(attachment());
    request.set_link_id(kLink);
    request.set_sequence(1);
    request.set_block_bytes(scene.block_bytes);
    request.mutable_read()->set_lease_id(scene.lease);
    request.mutable_read()->set_first_block(1);
    request.mutable_read()->set_blocks(3);
    change(request);
    v1::NcclOpenResponse response;
    const absl::Status status = Unary(&PeerStub::NcclOpen, request, &response);
    if (!status.ok() || response.code() == 0) return status;
    EXPECT_EQ(response.blocks(), 0u);
    return Refusal(static_cast<absl::StatusCode>(response.code()), response.reason(),
                   response.sentence());
  }

  absl::Status Finish(uint64_t attachment_id, uint64_t link, uint64_t sequence) {
    v1::NcclFinishRequest request;
    request.set_attachment_id(attachment_id);
    request.set_link_id(link);
    request.set_sequence(sequence);
    v1::NcclFinishResponse response;
    return Unary(&PeerStub::NcclFinish, request, &response);
  }

  absl::Status Hangup(uint64_t attachment_id, uint64_t link) {
    v1::NcclHangupRequest request;
    request.set_attachment_id(attachment_id);
    request.set_link_id(link);
    v1::NcclHangupResponse response;
    return Unary(&PeerStub::NcclHangup, request, &response);
  }

  NcclServing serving;
  Scene scene;
  const std::unique_ptr<PeerStub> stub =
      v1::PeerService::NewStub(wire::MakeChannel(scene.shard.address()));
  const RawAttachment stranger{*scene.stub};
};

struct BadPeerInput {
  const char* name;
  std::function<absl::Status(PeerScene&)> send;
  StatusCode code;
  const char* reason;
};

class PeerBadInputTest : public ::testing::TestWithParam<BadPeerInput> {};

TEST_P(PeerBadInputTest, GetsItsStatusAndChangesNothing) {
  SetNcclFaults("");
  {
    PeerScene peer;
    const std::string before = peer.scene.Accounting();
    const absl::Status status = GetParam().send(peer);
    EXPECT_EQ(status.code(), GetParam().code) << status;
    EXPECT_EQ(RefusalReason(status), GetParam().reason) << status;
    EXPECT_EQ(status.ok(), status.message().empty()) << "a refusal has a sentence";
    EXPECT_EQ(peer.scene.Accounting(), before);
    EXPECT_EQ(peer.scene.shard.engine().CheckInvariants(), absl::OkStatus());
    // Whoever else has a link keeps it.
    EXPECT_EQ(peer.Connect(peer.stranger.id(), kForeignLink).code(), StatusCode::kAlreadyExists);
    const auto link = peer.scene.shard.Connect();
    EXPECT_EQ(*FetchChain(*link, peer.scene.spec, peer.scene.stored), peer.scene.stored.size());
  }
  const absl::Time deadline = Soon();
  while (LiveCommunicators() > 0 && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(LiveCommunicators(), 0);
}

// ---- Connect

const BadPeerInput kConnect[] = {
    {"ConnectUnsetAttachment", [](PeerScene& p) { return p.Connect(0, 1); }, StatusCode::kNotFound,
     "ATTACHMENT_UNKNOWN"},
    {"ConnectUnknownAttachment", [](PeerScene& p) { return p.Connect(kUnknown, 1); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"ConnectUnsetUniqueId", [](PeerScene& p) { return p.Connect(p.attachment(), 1, 0); },
     StatusCode::kInvalidArgument, "UNIQUE_ID_LENGTH"},
    {"ConnectShortUniqueId", [](PeerScene& p) { return p.Connect(p.attachment(), 1, 127); },
     StatusCode::kInvalidArgument, "UNIQUE_ID_LENGTH"},
    {"ConnectLongUniqueId", [](PeerScene& p) { return p.Connect(p.attachment(), 1, 1 << 20); },
     StatusCode::kInvalidArgument, "UNIQUE_ID_LENGTH"},
    {"ConnectUnsetLink", [](PeerScene& p) { return p.Connect(p.attachment(), 0); },
     StatusCode::kAlreadyExists, "LINK_KNOWN"},
    {"ConnectTwice", [](PeerScene& p) { return p.Connect(p.attachment(), kLink); },
     StatusCode::kAlreadyExists, "LINK_KNOWN"},
    {"ConnectAStrangersLink", [](PeerScene& p) { return p.Connect(p.attachment(), kForeignLink); },
     StatusCode::kAlreadyExists, "LINK_KNOWN"},
};

// ---- Open

BadPeerInput OpenWith(const char* name, std::function<void(v1::NcclOpenRequest&)> change,
                      StatusCode code, const char* reason) {
  return {name, [change](PeerScene& p) { return p.Open(change); }, code, reason};
}

// A write of the reserved blocks.
BadPeerInput WriteWith(const char* name, const std::vector<uint32_t>& blocks, StatusCode code,
                       const char* reason) {
  return {name,
          [blocks](PeerScene& p) {
            return p.Open([&](v1::NcclOpenRequest& request) {
              request.mutable_write()->set_reservation_id(p.scene.reservation);
              request.mutable_write()->mutable_blocks()->Add(blocks.begin(), blocks.end());
            });
          },
          code, reason};
}

const BadPeerInput kOpen[] = {
    OpenWith(
        "OpenUnknownAttachment", [](auto& r) { r.set_attachment_id(kUnknown); },
        StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"),
    OpenWith(
        "OpenUnsetLink", [](auto& r) { r.set_link_id(0); }, StatusCode::kNotFound, "LINK_UNKNOWN"),
    OpenWith(
        "OpenAStrangersLink", [](auto& r) { r.set_link_id(kForeignLink); }, StatusCode::kNotFound,
        "LINK_UNKNOWN"),
    OpenWith(
        "OpenUnsetGroup", [](auto& r) { r.clear_group(); }, StatusCode::kInvalidArgument,
        "GROUP_UNSET"),
    OpenWith(
        "OpenUnsetSequence", [](auto& r) { r.set_sequence(0); }, StatusCode::kInvalidArgument,
        "NCCL_SEQUENCE"),
    OpenWith(
        "OpenOutOfTurn", [](auto& r) { r.set_sequence(2); }, StatusCode::kInvalidArgument,
        "NCCL_SEQUENCE"),
    OpenWith(
        "ReadNoBlocks", [](auto& r) { r.mutable_read()->set_blocks(0); },
        StatusCode::kInvalidArgument, "NCCL_SEQUENCE"),
    OpenWith(
        "ReadMoreThanAGroup", [](auto& r) { r.mutable_read()->set_blocks(~0u); },
        StatusCode::kInvalidArgument, "NCCL_SEQUENCE"),
    OpenWith(
        "ReadUnsetLease", [](auto& r) { r.mutable_read()->set_lease_id(0); }, StatusCode::kNotFound,
        "LEASE_UNKNOWN"),
    OpenWith(
        "ReadUnknownLease", [](auto& r) { r.mutable_read()->set_lease_id(kUnknown); },
        StatusCode::kNotFound, "LEASE_UNKNOWN"),
    OpenWith(
        "ReadBeyondTheLease", [](auto& r) { r.mutable_read()->set_blocks(4); },
        StatusCode::kOutOfRange, "BLOCK_NOT_LEASED"),
    OpenWith(
        "ReadOtherBlockBytes", [](auto& r) { r.set_block_bytes(r.block_bytes() + 1); },
        StatusCode::kInvalidArgument, "BLOCK_BYTES"),
    OpenWith(
        "ReadUnsetBlockBytes", [](auto& r) { r.set_block_bytes(0); }, StatusCode::kInvalidArgument,
        "BLOCK_BYTES"),
    OpenWith(
        "WriteUnsetReservation", [](auto& r) { r.mutable_write()->add_blocks(0); },
        StatusCode::kInvalidArgument, "RESERVATION_UNSET"),
    OpenWith(
        "WriteUnknownReservation",
        [](auto& r) {
          r.mutable_write()->set_reservation_id(kUnknown);
          r.mutable_write()->add_blocks(0);
        },
        StatusCode::kNotFound, "RESERVATION_UNKNOWN"),
    WriteWith("WriteNoBlocks", {}, StatusCode::kInvalidArgument, "NCCL_SEQUENCE"),
    WriteWith("WriteABlockThatWasNotGranted", {3}, StatusCode::kFailedPrecondition,
              "BLOCK_NOT_GRANTED"),
    WriteWith("WriteABlockTwice", {1, 1}, StatusCode::kInvalidArgument, "BLOCKS_ORDER"),
    WriteWith("WriteBackwards", {2, 1}, StatusCode::kInvalidArgument, "BLOCKS_ORDER"),
    {"OpenCancelled",
     [](PeerScene& p) {
       v1::NcclOpenRequest request;
       v1::NcclOpenResponse response;
       grpc::ClientContext context;
       context.TryCancel();
       return wire::FromGrpcStatus(p.stub->NcclOpen(&context, request, &response));
     },
     StatusCode::kCancelled, ""},
};

// ---- Finish and Hangup

const BadPeerInput kFinish[] = {
    {"FinishUnknownAttachment", [](PeerScene& p) { return p.Finish(kUnknown, kLink, 1); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"FinishUnknownLink", [](PeerScene& p) { return p.Finish(p.attachment(), 1, 1); },
     StatusCode::kNotFound, "LINK_UNKNOWN"},
    {"FinishAStrangersLink", [](PeerScene& p) { return p.Finish(p.attachment(), kForeignLink, 1); },
     StatusCode::kNotFound, "LINK_UNKNOWN"},
    {"FinishWhatWasNotBegun", [](PeerScene& p) { return p.Finish(p.attachment(), kLink, 1); },
     StatusCode::kNotFound, "LINK_UNKNOWN"},
    {"HangupUnknownAttachment", [](PeerScene& p) { return p.Hangup(kUnknown, kLink); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"HangupUnknownLink", [](PeerScene& p) { return p.Hangup(p.attachment(), 1); }, StatusCode::kOk,
     ""},
    {"HangupAStrangersLink", [](PeerScene& p) { return p.Hangup(p.attachment(), kForeignLink); },
     StatusCode::kOk, ""},
};

TEST(PeerService, AnExpiredLeaseIsNotRead) {
  SetNcclFaults("");
  PeerScene peer;
  peer.scene.clock.Advance(absl::Seconds(2));
  const absl::Status status = peer.Open([](auto&) {});
  EXPECT_EQ(RefusalReason(status), "LEASE_UNKNOWN") << status;
  EXPECT_EQ(peer.scene.shard.engine().CheckInvariants(), absl::OkStatus());
}

std::string PeerNameOf(const ::testing::TestParamInfo<BadPeerInput>& info) {
  return info.param.name;
}
INSTANTIATE_TEST_SUITE_P(Connect, PeerBadInputTest, ::testing::ValuesIn(kConnect), PeerNameOf);
INSTANTIATE_TEST_SUITE_P(Open, PeerBadInputTest, ::testing::ValuesIn(kOpen), PeerNameOf);
INSTANTIATE_TEST_SUITE_P(Finish, PeerBadInputTest, ::testing::ValuesIn(kFinish), PeerNameOf);

}  // namespace
}  // namespace reprise::testing
