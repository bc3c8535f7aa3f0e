// What a shard answers to requests that no client of ours sends: the documented status and reason,
// and a shard in which nothing changed.

#include <gtest/gtest.h>

#include "reprise/v1/admin.grpc.pb.h"
#include "tests/cluster/bad_input.h"

namespace reprise::testing {

TEST_P(BadInputTest, GetsItsStatusAndChangesNothing) {
  Scene scene;
  const std::string before = scene.Accounting();
  const absl::Status status = GetParam().send(scene);
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_EQ(RefusalReason(status), GetParam().reason) << status;
  EXPECT_EQ(status.ok(), status.message().empty()) << "a refusal has a sentence";
  EXPECT_EQ(scene.Accounting(), before);
  EXPECT_EQ(scene.shard.engine().CheckInvariants(), absl::OkStatus());
  // The shard still serves.
  const auto link = scene.shard.Connect();
  EXPECT_EQ(*FetchChain(*link, scene.spec, scene.stored), scene.stored.size());
}

namespace {

// ---- Attach

absl::Status AttachWith(Scene& scene, const std::vector<v1::AttachRequest>& requests) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = scene.stub->Attach(&context);
  for (const v1::AttachRequest& request : requests) stream->Write(request);
  stream->WritesDone();
  v1::AttachResponse response;
  while (stream->Read(&response)) {
  }
  return wire::FromGrpcStatus(stream->Finish());
}

v1::AttachRequest Hello(const std::function<void(v1::AttachRequest::Hello&)>& fill) {
  v1::AttachRequest request;
  fill(*request.mutable_hello());
  return request;
}

const v1::AttachRequest kPlainHello = Hello([](auto&) {});
const v1::AttachRequest kKeepAlive = [] {
  v1::AttachRequest request;
  request.mutable_keep_alive();
  return request;
}();
const std::string kLongName(limits::kNameBytesMax + 1, 'n');

const BadInput kAttach[] = {
    {"AttachHalfClosed", [](Scene& s) { return AttachWith(s, {}); }, StatusCode::kOk, ""},
    {"AttachUnset", [](Scene& s) { return AttachWith(s, {v1::AttachRequest()}); },
     StatusCode::kInvalidArgument, "MESSAGE_UNSET"},
    {"AttachKeepAliveFirst", [](Scene& s) { return AttachWith(s, {kKeepAlive}); },
     StatusCode::kInvalidArgument, "HELLO_MISSING"},
    {"AttachHelloTwice",
     [](Scene& s) {
       return AttachWith(s, {kPlainHello, kPlainHello});
     },
     StatusCode::kInvalidArgument, "HELLO_REPEATED"},
    {"AttachLongName",
     [](Scene& s) {
       return AttachWith(s, {Hello([](auto& hello) { hello.set_client_name(kLongName); })});
     },
     StatusCode::kInvalidArgument, "NAME_TOO_LONG"},
    {"AttachLongHost",
     [](Scene& s) {
       return AttachWith(s, {Hello([](auto& hello) { hello.set_host_id(kLongName); })});
     },
     StatusCode::kInvalidArgument, "NAME_TOO_LONG"},
    {"AttachUnspecifiedLane",
     [](Scene& s) {
       return AttachWith(s,
                         {Hello([](auto& hello) { hello.add_lanes(v1::LANE_KIND_UNSPECIFIED); })});
     },
     StatusCode::kInvalidArgument, "ENUM_VALUE"},
    {"AttachOnlyLanesOfANewerVersion",
     [](Scene& s) {
       return AttachWith(
           s, {Hello([](auto& hello) { hello.add_lanes(static_cast<v1::LaneKind>(99)); })});
     },
     StatusCode::kFailedPrecondition, "LANES_DISJOINT"},
    {"AttachNoSharedLane",
     [](Scene& s) {
       return AttachWith(s, {Hello([](auto& hello) { hello.add_lanes(v1::LANE_KIND_NCCL); })});
     },
     StatusCode::kFailedPrecondition, "LANES_DISJOINT"},
    {"AttachCancelled",
     [](Scene& s) {
       grpc::ClientContext context;
       const auto stream = s.stub->Attach(&context);
       stream->Write(kPlainHello);
       v1::AttachResponse welcome;
       stream->Read(&welcome);
       context.TryCancel();
       return wire::FromGrpcStatus(stream->Finish());
     },
     StatusCode::kCancelled, ""},
};

// ---- OpenSpec

absl::Status OpenWith(Scene& scene, const std::function<void(v1::OpenSpecRequest&)>& change) {
  v1::OpenSpecRequest request;
  request.set_attachment_id(scene.attachment.id());
  *request.mutable_spec() = wire::ToMessage(scene.spec);
  change(request);
  v1::OpenSpecResponse response;
  return scene.Unary(&Stub::OpenSpec, request, &response);
}

const BadInput kOpenSpec[] = {
    {"OpenSpecUnattached",
     [](Scene& s) { return OpenWith(s, [](auto& r) { r.clear_attachment_id(); }); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"OpenSpecUnset", [](Scene& s) { return OpenWith(s, [](auto& r) { r.clear_spec(); }); },
     StatusCode::kInvalidArgument, "SPEC_UNSET"},
    {"OpenSpecEmpty",
     [](Scene& s) { return OpenWith(s, [](auto& r) { r.mutable_spec()->Clear(); }); },
     StatusCode::kInvalidArgument, "SPEC_FIELD"},
    {"OpenSpecUnknownType",
     [](Scene& s) {
       return OpenWith(s,
                       [](auto& r) { r.mutable_spec()->set_dtype(static_cast<v1::DataType>(77)); });
     },
     StatusCode::kInvalidArgument, "SPEC_FIELD"},
    {"OpenSpecLongText",
     [](Scene& s) {
       return OpenWith(s, [](auto& r) {
         r.mutable_spec()->set_model(std::string(limits::kSpecTextBytesMax + 1, 'm'));
       });
     },
     StatusCode::kInvalidArgument, "SPEC_FIELD"},
    {"OpenSpecShortFingerprint",
     [](Scene& s) { return OpenWith(s, [](auto& r) { r.set_expected_fingerprint("short"); }); },
     StatusCode::kInvalidArgument, "FINGERPRINT_LENGTH"},
    {"OpenSpecUnknownFingerprint",
     [](Scene& s) {
       return OpenWith(s, [](auto& r) { r.set_expected_fingerprint(std::string(32, 'x')); });
     },
     StatusCode::kFailedPrecondition, "FINGERPRINT_UNKNOWN"},
    {"OpenSpecOtherSpec",
     [](Scene& s) {
       const absl::Status status = OpenWith(s, [&](auto& r) {
         r.set_expected_fingerprint(wire::ToBytes(FingerprintOf(s.spec)));
         r.mutable_spec()->set_dtype(v1::DATA_TYPE_BF16);
       });
       EXPECT_NE(status.message().find("dtype"), absl::string_view::npos) << status;
       EXPECT_NE(status.message().find("bf16"), absl::string_view::npos) << status;
       EXPECT_NE(status.message().find("f16"), absl::string_view::npos) << status;
       return status;
     },
     StatusCode::kFailedPrecondition, "SPEC_DIFFERS"},
    {"OpenSpecOversized",
     [](Scene& s) {
       return OpenWith(s, [](auto& r) {
         r.mutable_spec()->set_model(std::string(limits::kMessageBytesMax, 'm'));
       });
     },
     StatusCode::kResourceExhausted, ""},
};

// ---- Verbs that take keys

std::string ManyKeys() {
  std::string keys((limits::kPromptBlocksMax + 1) * kDigestBytes, 'k');
  for (size_t i = 0; i * kDigestBytes < keys.size(); ++i) {
    std::memcpy(keys.data() + i * kDigestBytes, &i, sizeof(i));
  }
  return keys;
}

template <typename Request, typename Response>
absl::Status KeysWith(Scene& scene,
                      grpc::Status (Stub::*verb)(grpc::ClientContext*, const Request&, Response*),
                      const std::function<void(Request&)>& change) {
  Request request;
  request.set_attachment_id(scene.attachment.id());
  request.set_spec_handle(scene.handle);
  if constexpr (std::is_same_v<Request, v1::HintRequest>) request.mutable_evict();
  change(request);
  Response response;
  return scene.Unary(verb, request, &response);
}

// The faults that every such verb has in common.
template <typename Request, typename Response>
std::vector<BadInput> KeyFaults(const char* const (&names)[7],
                                grpc::Status (Stub::*verb)(grpc::ClientContext*, const Request&,
                                                           Response*)) {
  const auto send = [verb](std::function<void(Scene&, Request&)> change) {
    return [verb, change](Scene& scene) {
      return KeysWith<Request, Response>(scene, verb,
                                         [&](Request& request) { change(scene, request); });
    };
  };
  const auto keys = [](const Scene& scene) { return PackKeys(scene.stored); };
  return {
      {names[0], send([=](Scene& s, Request& r) {
         r.set_keys(keys(s));
         r.set_attachment_id(kUnknown);
       }),
       StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
      {names[1], send([=](Scene& s, Request& r) {
         r.set_keys(keys(s));
         r.set_spec_handle(77);
       }),
       StatusCode::kNotFound, "SPEC_UNKNOWN"},
      {names[2], send([=](Scene& s, Request& r) {
         r.set_keys(keys(s));
         r.clear_spec_handle();
       }),
       StatusCode::kNotFound, "SPEC_UNKNOWN"},
      {names[3], send([=](Scene& s, Request& r) { r.set_keys(keys(s) + "x"); }),
       StatusCode::kInvalidArgument, "KEYS_LENGTH"},
      {names[4], send([=](Scene& s, Request& r) { r.set_keys(keys(s) + keys(s)); }),
       StatusCode::kInvalidArgument, "KEYS_DUPLICATE"},
      {names[5], send([=](Scene&, Request& r) { r.set_keys(ManyKeys()); }),
       StatusCode::kInvalidArgument, "KEYS_TOO_MANY"},
      {names[6], send([=](Scene&, Request& r) {
         r.set_keys(std::string(limits::kMessageBytesMax + 32, 'k'));
       }),
       StatusCode::kResourceExhausted, ""},
  };
}

constexpr const char* kLookupNames[7] = {"LookupUnattached", "LookupUnknownSpec", "LookupUnsetSpec",
                                         "LookupMisaligned", "LookupDuplicate",   "LookupTooMany",
                                         "LookupOversized"};
constexpr const char* kAcquireNames[7] = {
    "AcquireUnattached", "AcquireUnknownSpec", "AcquireUnsetSpec", "AcquireMisaligned",
    "AcquireDuplicate",  "AcquireTooMany",     "AcquireOversized"};
constexpr const char* kReserveNames[7] = {
    "ReserveUnattached", "ReserveUnknownSpec", "ReserveUnsetSpec", "ReserveMisaligned",
    "ReserveDuplicate",  "ReserveTooMany",     "ReserveOversized"};
constexpr const char* kPullNames[7] = {"PullUnattached", "PullUnknownSpec", "PullUnsetSpec",
                                       "PullMisaligned", "PullDuplicate",   "PullTooMany",
                                       "PullOversized"};
constexpr const char* kHintNames[7] = {"HintUnattached", "HintUnknownSpec", "HintUnsetSpec",
                                       "HintMisaligned", "HintDuplicate",   "HintTooMany",
                                       "HintOversized"};
constexpr const char* kRemoveNames[7] = {"RemoveUnattached", "RemoveUnknownSpec", "RemoveUnsetSpec",
                                         "RemoveMisaligned", "RemoveDuplicate",   "RemoveTooMany",
                                         "RemoveOversized"};

absl::Status ReserveWith(Scene& scene, const std::function<void(v1::ReserveRequest&)>& change) {
  return KeysWith<v1::ReserveRequest, v1::ReserveResponse>(scene, &Stub::Reserve, [&](auto& r) {
    r.set_keys(PackKeys(ChainNamed("reserve", 2)));
    change(r);
  });
}

absl::Status PullWith(Scene& scene, const std::function<void(v1::PullRequest&)>& change) {
  return KeysWith<v1::PullRequest, v1::PullResponse>(scene, &Stub::Pull, [&](auto& r) {
    r.set_keys(PackKeys(scene.fresh));
    change(r);
  });
}

absl::Status HintWith(Scene& scene, const std::function<void(v1::HintRequest&)>& change) {
  return KeysWith<v1::HintRequest, v1::HintResponse>(scene, &Stub::Hint, [&](auto& r) {
    r.set_keys(PackKeys(scene.stored));
    change(r);
  });
}

const BadInput kHints[] = {
    {"HintActionUnset", [](Scene& s) { return HintWith(s, [](auto& r) { r.clear_action(); }); },
     StatusCode::kInvalidArgument, "HINT_ACTION"},
    {"HintKeysUnset", [](Scene& s) { return HintWith(s, [](auto& r) { r.clear_keys(); }); },
     StatusCode::kInvalidArgument, "HINT_KEYS"},
    {"HintFirstBlockBeyond",
     [](Scene& s) { return HintWith(s, [](auto& r) { r.mutable_evict()->set_first_block(4); }); },
     StatusCode::kInvalidArgument, "HINT_FIRST_BLOCK"},
    {"HintEvictOfWhatIsLeased", [](Scene& s) { return HintWith(s, [](auto&) {}); }, StatusCode::kOk,
     ""},
    {"HintDemoteWithoutAnotherTier",
     [](Scene& s) { return HintWith(s, [](auto& r) { r.mutable_demote(); }); }, StatusCode::kOk,
     ""},
    {"HintUnnamedClaim",
     [](Scene& s) { return HintWith(s, [](auto& r) { r.mutable_pin()->set_ttl_ms(1000); }); },
     StatusCode::kInvalidArgument, "CLAIM_ID"},
    {"HintLongClaimName",
     [](Scene& s) {
       return HintWith(s, [](auto& r) { r.mutable_release()->set_claim_id(kLongName); });
     },
     StatusCode::kInvalidArgument, "CLAIM_ID"},
    {"HintTtlUnset",
     [](Scene& s) { return HintWith(s, [](auto& r) { r.mutable_retain()->set_claim_id("c"); }); },
     StatusCode::kInvalidArgument, "CLAIM_TTL"},
    {"HintPriorityTooHigh",
     [](Scene& s) {
       return HintWith(s, [](auto& r) {
         r.mutable_retain()->set_claim_id("c");
         r.mutable_retain()->set_ttl_ms(1000);
         r.mutable_retain()->set_priority(limits::kClaimPriorityMax + 1);
       });
     },
     StatusCode::kInvalidArgument, "CLAIM_PRIORITY"},
};

const BadInput kKeyVerbs[] = {
    {"LookupEmpty",
     [](Scene& s) {
       return KeysWith<v1::LookupRequest, v1::LookupResponse>(s, &Stub::Lookup, [](auto&) {});
     },
     StatusCode::kOk, ""},
    {"AcquireEmpty",
     [](Scene& s) {
       return KeysWith<v1::AcquireRequest, v1::AcquireResponse>(s, &Stub::Acquire, [](auto&) {});
     },
     StatusCode::kOk, ""},
    {"AcquireBeyondTheRun",
     [](Scene& s) {
       return KeysWith<v1::AcquireRequest, v1::AcquireResponse>(s, &Stub::Acquire, [&](auto& r) {
         r.set_keys(PackKeys(s.stored));
         r.set_first_block(1'000'000);
       });
     },
     StatusCode::kOk, ""},
    {"RemoveEmpty",
     [](Scene& s) {
       return KeysWith<v1::RemoveRequest, v1::RemoveResponse>(s, &Stub::Remove, [](auto&) {});
     },
     StatusCode::kOk, ""},
    {"RemoveLeased",
     [](Scene& s) {
       return KeysWith<v1::RemoveRequest, v1::RemoveResponse>(
           s, &Stub::Remove, [&](auto& r) { r.set_keys(PackKeys(s.stored)); });
     },
     StatusCode::kOk, ""},
    {"ReserveEmpty", [](Scene& s) { return ReserveWith(s, [](auto& r) { r.clear_keys(); }); },
     StatusCode::kInvalidArgument, "KEYS_EMPTY"},
    {"ReservePositionsCount",
     [](Scene& s) { return ReserveWith(s, [](auto& r) { r.add_token_positions(0); }); },
     StatusCode::kInvalidArgument, "TOKEN_POSITIONS_LENGTH"},
    {"ReserveTokensCount",
     [](Scene& s) { return ReserveWith(s, [](auto& r) { r.add_token_ids(5); }); },
     StatusCode::kInvalidArgument, "TOKEN_IDS_LENGTH"},
    {"ReserveLongSession",
     [](Scene& s) { return ReserveWith(s, [](auto& r) { r.set_session_id(kLongName); }); },
     StatusCode::kInvalidArgument, "SESSION_ID_LENGTH"},
    {"ReserveNoChain",
     [](Scene& s) {
       return ReserveWith(s,
                          [&](auto& r) { r.set_keys(PackKeys(std::span(s.stored).subspan(2))); });
     },
     StatusCode::kInvalidArgument, "KEYS_NOT_A_CHAIN"},
    {"PullEmpty", [](Scene& s) { return PullWith(s, [](auto& r) { r.clear_keys(); }); },
     StatusCode::kInvalidArgument, "KEYS_EMPTY"},
    {"PullTokensCount", [](Scene& s) { return PullWith(s, [](auto& r) { r.add_token_ids(5); }); },
     StatusCode::kInvalidArgument, "TOKEN_IDS_LENGTH"},
    {"PullLongSession",
     [](Scene& s) { return PullWith(s, [](auto& r) { r.set_session_id(kLongName); }); },
     StatusCode::kInvalidArgument, "SESSION_ID_LENGTH"},
    {"PullAlone", [](Scene& s) { return PullWith(s, [](auto&) {}); },
     StatusCode::kFailedPrecondition, "NO_MEMBERS"},
    {"DrainAlone",
     [](Scene& s) {
       const auto stub = v1::AdminService::NewStub(wire::MakeChannel(s.shard.address()));
       grpc::ClientContext context;
       v1::DrainResponse response;
       return wire::FromGrpcStatus(stub->Drain(&context, v1::DrainRequest(), &response));
     },
     StatusCode::kFailedPrecondition, "NO_MEMBERS"},
    {"ReserveCancelled",
     [](Scene& s) {
       grpc::ClientContext context;
       context.TryCancel();
       v1::ReserveResponse response;
       return wire::FromGrpcStatus(s.stub->Reserve(&context, v1::ReserveRequest(), &response));
     },
     StatusCode::kCancelled, ""},
};

// ---- Release, Commit, Explain

absl::Status CommitWith(Scene& scene, const std::function<void(v1::CommitRequest&)>& change) {
  v1::CommitRequest request;
  request.set_attachment_id(scene.attachment.id());
  request.set_reservation_id(scene.reservation);
  change(request);
  v1::CommitResponse response;
  return scene.Unary(&Stub::Commit, request, &response);
}

absl::Status ReleaseWith(Scene& scene, const std::function<void(v1::ReleaseRequest&)>& change) {
  v1::ReleaseRequest request;
  request.set_attachment_id(scene.attachment.id());
  change(request);
  v1::ReleaseResponse response;
  const absl::Status status = scene.Unary(&Stub::Release, request, &response);
  EXPECT_EQ(response.released(), 0u);
  return status;
}

absl::Status ExplainWith(Scene& scene, const std::function<void(v1::ExplainRequest&)>& change) {
  v1::ExplainRequest request;
  request.set_fingerprint(wire::ToBytes(FingerprintOf(scene.spec)));
  request.set_keys(PackKeys(scene.fresh));
  change(request);
  v1::ExplainResponse response;
  return scene.Unary(&Stub::Explain, request, &response);
}

const BadInput kOthers[] = {
    {"ReleaseUnattached",
     [](Scene& s) { return ReleaseWith(s, [](auto& r) { r.set_attachment_id(kUnknown); }); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"ReleaseEmpty", [](Scene& s) { return ReleaseWith(s, [](auto&) {}); }, StatusCode::kOk, ""},
    {"ReleaseUnknown",
     [](Scene& s) { return ReleaseWith(s, [](auto& r) { r.add_lease_ids(kUnknown); }); },
     StatusCode::kOk, ""},
    {"ReleaseTooMany",
     [](Scene& s) {
       return ReleaseWith(s, [](auto& r) {
         for (size_t i = 0; i <= limits::kLeasesPerAttachmentMax; ++i)
           r.add_lease_ids(kUnknown + i);
       });
     },
     StatusCode::kInvalidArgument, "LEASE_IDS_TOO_MANY"},
    {"CommitUnattached",
     [](Scene& s) { return CommitWith(s, [](auto& r) { r.set_attachment_id(kUnknown); }); },
     StatusCode::kNotFound, "ATTACHMENT_UNKNOWN"},
    {"CommitUnknownReservation",
     [](Scene& s) { return CommitWith(s, [](auto& r) { r.set_reservation_id(kUnknown); }); },
     StatusCode::kNotFound, "RESERVATION_UNKNOWN"},
    {"CommitMisalignedChecksums",
     [](Scene& s) { return CommitWith(s, [](auto& r) { r.set_checksums("17 bytes of this."); }); },
     StatusCode::kInvalidArgument, "CHECKSUMS_LENGTH"},
    {"CommitChecksumsCount",
     [](Scene& s) { return CommitWith(s, [](auto& r) { r.set_checksums(std::string(16, 'c')); }); },
     StatusCode::kInvalidArgument, "CHECKSUMS_COUNT"},
    {"CommitBlockTwice",
     [](Scene& s) {
       return CommitWith(s, [](auto& r) {
         r.add_blocks(1);
         r.add_blocks(1);
         r.set_checksums(std::string(32, 'c'));
       });
     },
     StatusCode::kInvalidArgument, "BLOCKS_DUPLICATE"},
    {"CommitNotGranted",
     [](Scene& s) {
       return CommitWith(s, [](auto& r) {
         r.add_blocks(9);
         r.set_checksums(std::string(16, 'c'));
       });
     },
     StatusCode::kFailedPrecondition, "BLOCK_NOT_GRANTED"},
    {"CommitNotWritten",
     [](Scene& s) { return CommitWith(s, [](auto& r) { r.set_checksums(std::string(48, 'c')); }); },
     StatusCode::kFailedPrecondition, "BYTES_MISSING"},
    {"ExplainUnsetFingerprint",
     [](Scene& s) { return ExplainWith(s, [](auto& r) { r.clear_fingerprint(); }); },
     StatusCode::kInvalidArgument, "FINGERPRINT_LENGTH"},
    {"ExplainEmpty", [](Scene& s) { return ExplainWith(s, [](auto& r) { r.clear_keys(); }); },
     StatusCode::kInvalidArgument, "KEYS_EMPTY"},
    {"ExplainMisaligned",
     [](Scene& s) { return ExplainWith(s, [](auto& r) { r.set_keys("abc"); }); },
     StatusCode::kInvalidArgument, "KEYS_LENGTH"},
    {"ExplainUnknownFingerprint",
     [](Scene& s) {
       return ExplainWith(s, [](auto& r) { r.set_fingerprint(std::string(32, 'u')); });
     },
     StatusCode::kOk, ""},
    {"ExplainTooFewTokens",
     [](Scene& s) { return ExplainWith(s, [](auto& r) { r.add_token_ids(1); }); }, StatusCode::kOk,
     ""},
};

INSTANTIATE_TEST_SUITE_P(Attach, BadInputTest, ::testing::ValuesIn(kAttach), NameOf);
INSTANTIATE_TEST_SUITE_P(OpenSpec, BadInputTest, ::testing::ValuesIn(kOpenSpec), NameOf);
INSTANTIATE_TEST_SUITE_P(Lookup, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kLookupNames, &Stub::Lookup)), NameOf);
INSTANTIATE_TEST_SUITE_P(Acquire, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kAcquireNames, &Stub::Acquire)), NameOf);
INSTANTIATE_TEST_SUITE_P(Reserve, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kReserveNames, &Stub::Reserve)), NameOf);
INSTANTIATE_TEST_SUITE_P(Pull, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kPullNames, &Stub::Pull)), NameOf);
INSTANTIATE_TEST_SUITE_P(Hint, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kHintNames, &Stub::Hint)), NameOf);
INSTANTIATE_TEST_SUITE_P(Hints, BadInputTest, ::testing::ValuesIn(kHints), NameOf);
INSTANTIATE_TEST_SUITE_P(Remove, BadInputTest,
                         ::testing::ValuesIn(KeyFaults(kRemoveNames, &Stub::Remove)), NameOf);
INSTANTIATE_TEST_SUITE_P(KeyVerbs, BadInputTest, ::testing::ValuesIn(kKeyVerbs), NameOf);
INSTANTIATE_TEST_SUITE_P(Others, BadInputTest, ::testing::ValuesIn(kOthers), NameOf);

}  // namespace
}  // namespace reprise::testing
