// What the tcp port answers to verbs: the handlers of gRPC, for whoever opened the attachment.
#include "service/shard/tcp_verbs.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/types/refusal.h"
#include "proto/types/status_macros.h"
#include "tests/support/stored_chain.h"

namespace reprise::shard {
namespace {

using lanes::tcp::Verb;

constexpr Verb kAll[] = {Verb::kLookup, Verb::kAcquire, Verb::kRelease, Verb::kReserve,
                         Verb::kCommit};

class TcpVerbsTest : public ::testing::Test {
 protected:
  TcpVerbsTest() : TcpVerbsTest(AdmissionLimits{}) {}
  explicit TcpVerbsTest(AdmissionLimits limits)
      : engine_(*ShardEngine::Create({.id = ShardId{"shard-t"}, .dram_bytes = 8 << 20})),
        core_{.engine = *engine_, .id = ShardId{"shard-t"}, .admission = Admission::Create(limits)},
        verbs_(core_, [this](absl::string_view method, absl::StatusCode code, absl::Duration took) {
          EXPECT_GE(took, absl::ZeroDuration());
          told_.emplace_back(method, code);
        }) {}

  // Of a caller that reads and writes blocks of `tenant`, its own unless it is of the fleet.
  AttachmentId Attach(const std::string& caller, const std::string& tenant) {
    const AttachmentId attachment = *engine_->Attach(Tenant{tenant}, "test");
    core_.attachments.Own(attachment, {.caller = Tenant{caller}, .tenant = Tenant{tenant}});
    return attachment;
  }
  AttachmentId Attach(const std::string& tenant) { return Attach(tenant, tenant); }
  void Detach(AttachmentId attachment) {
    core_.attachments.Disown(attachment);
    engine_->Detach(attachment);
  }
  uint32_t Open(AttachmentId attachment) {
    return engine_->OpenSpec(attachment, spec_, std::nullopt)->handle.value;
  }

  template <typename Response, typename Request>
  absl::StatusOr<Response> Ask(AttachmentId attachment, Verb verb, const Request& request) {
    REPRISE_ASSIGN_OR_RETURN(const std::string answer,
                             verbs_.Answer(attachment, verb, request.SerializeAsString()));
    Response response;
    if (!response.ParseFromString(answer)) return absl::DataLossError("not such an answer");
    return response;
  }
  absl::StatusOr<uint32_t> Lookup(AttachmentId attachment, const std::vector<BlockKey>& keys) {
    v1::LookupRequest request;
    request.set_spec_handle(Open(attachment));
    request.set_keys(PackKeys(keys));
    REPRISE_ASSIGN_OR_RETURN(const auto response,
                             Ask<v1::LookupResponse>(attachment, Verb::kLookup, request));
    return response.run_blocks();
  }
  absl::StatusOr<v1::AcquireResponse> Acquire(AttachmentId attachment,
                                              const std::vector<BlockKey>& keys) {
    v1::AcquireRequest request;
    request.set_spec_handle(Open(attachment));
    request.set_keys(PackKeys(keys));
    return Ask<v1::AcquireResponse>(attachment, Verb::kAcquire, request);
  }
  absl::StatusOr<v1::ReserveResponse> Reserve(AttachmentId attachment,
                                              const std::vector<BlockKey>& keys) {
    v1::ReserveRequest request;
    request.set_spec_handle(Open(attachment));
    request.set_keys(PackKeys(keys));
    return Ask<v1::ReserveResponse>(attachment, Verb::kReserve, request);
  }
  // By verbs, but for the bytes.
  void Store(AttachmentId attachment, const std::vector<BlockKey>& keys) {
    const auto reserved = Reserve(attachment, keys);
    ASSERT_TRUE(reserved.ok()) << reserved.status();
    const ReservationId reservation(reserved->reservation_id());
    for (uint32_t i = 0; i < keys.size(); ++i) {
      ASSERT_EQ(reserved->outcomes(static_cast<int>(i)), v1::RESERVE_OUTCOME_GRANTED) << i;
      auto slot = engine_->OpenWrite(attachment, reservation, i);
      ASSERT_TRUE(slot.ok()) << slot.status();
      testing::FillContent(keys[i], 0, slot->bytes);
      slot->pin.reset();
      ASSERT_TRUE(engine_->Written(attachment, reservation, i, slot->bytes.size()).ok());
    }
    v1::CommitRequest request;
    request.set_reservation_id(reservation.value);
    request.set_checksums(PackChecksums(testing::ChecksumsOf(keys, spec_)));
    const auto committed = Ask<v1::CommitResponse>(attachment, Verb::kCommit, request);
    ASSERT_TRUE(committed.ok()) << committed.status();
    ASSERT_EQ(committed->committed(), keys.size());
  }

  const CacheSpec spec_ = testing::SpecOf(4096);
  const std::vector<BlockKey> keys_ = testing::ChainNamed("by tcp", 3);
  std::unique_ptr<ShardEngine> engine_;
  ShardCore core_;
  std::vector<std::pair<std::string, absl::StatusCode>> told_;
  TcpVerbs verbs_;
};

TEST_F(TcpVerbsTest, AChainIsStoredFoundLeasedAndLetGo) {
  const AttachmentId attachment = Attach("acme");
  EXPECT_EQ(*Lookup(attachment, keys_), 0u);
  Store(attachment, keys_);
  EXPECT_EQ(*Lookup(attachment, keys_), 3u);
  const auto acquired = Acquire(attachment, keys_);
  ASSERT_TRUE(acquired.ok()) << acquired.status();
  EXPECT_EQ(acquired->run_blocks(), 3u);
  EXPECT_EQ(acquired->checksums(), PackChecksums(testing::ChecksumsOf(keys_, spec_)));
  EXPECT_EQ(engine_->Describe(Tenant{"acme"}).leases, 1u);
  v1::ReleaseRequest release;
  release.add_lease_ids(acquired->lease_id());
  EXPECT_EQ(Ask<v1::ReleaseResponse>(attachment, Verb::kRelease, release)->released(), 1u);
  EXPECT_EQ(engine_->Describe(Tenant{"acme"}).leases, 0u);
}

TEST_F(TcpVerbsTest, EveryVerbIsToldOfAsItsRpc) {
  const AttachmentId attachment = Attach("acme");
  for (const Verb verb : kAll) verbs_.Answer(attachment, verb, "").IgnoreError();
  verbs_.Answer(AttachmentId(666), Verb::kLookup, "").IgnoreError();
  // A spec handle that is none, nothing to release, and nothing to commit.
  const std::vector<std::pair<std::string, absl::StatusCode>> expected = {
      {"reprise.v1.ShardService/Lookup", absl::StatusCode::kNotFound},
      {"reprise.v1.ShardService/Acquire", absl::StatusCode::kNotFound},
      {"reprise.v1.ShardService/Release", absl::StatusCode::kOk},
      {"reprise.v1.ShardService/Reserve", absl::StatusCode::kNotFound},
      {"reprise.v1.ShardService/Commit", absl::StatusCode::kNotFound},
      {"reprise.v1.ShardService/Lookup", absl::StatusCode::kNotFound}};
  EXPECT_EQ(told_, expected);
}

TEST_F(TcpVerbsTest, NobodyNeedsToBeTold) {
  TcpVerbs quiet(core_, nullptr);
  EXPECT_TRUE(quiet.Answer(Attach("acme"), Verb::kRelease, "").ok());
}

TEST_F(TcpVerbsTest, AVerbThatIsNotKnownIsForGrpc) {
  const AttachmentId attachment = Attach("acme");
  for (const uint32_t number : {0u, 6u, ~0u}) {
    const absl::Status status = verbs_.Answer(attachment, static_cast<Verb>(number), "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << number;
    EXPECT_EQ(RefusalReason(status), "TCP_VERB_UNKNOWN") << number;
  }
  EXPECT_TRUE(told_.empty());
}

TEST_F(TcpVerbsTest, ABodyThatIsNoRequestIsRefused) {
  const AttachmentId attachment = Attach("acme");
  for (const Verb verb : kAll) {
    // A field whose length goes on beyond the end.
    const absl::Status status = verbs_.Answer(attachment, verb, "\x1a\x7f").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(RefusalReason(status), "REQUEST_MALFORMED");
    EXPECT_EQ(told_.back().second, absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(told_.size(), std::size(kAll));
}

TEST_F(TcpVerbsTest, ARequestSpeaksForItsConnectionWhateverItSays) {
  const AttachmentId acme = Attach("acme"), other = Attach("other");
  Store(acme, keys_);
  const uint64_t lease = Acquire(acme, keys_)->lease_id();
  v1::ReleaseRequest release;
  release.add_lease_ids(lease);
  release.set_attachment_id(acme.value);
  EXPECT_EQ(Ask<v1::ReleaseResponse>(other, Verb::kRelease, release)->released(), 0u);
  EXPECT_EQ(engine_->Describe(Tenant{"acme"}).leases, 1u);
  release.set_attachment_id(other.value);
  EXPECT_EQ(Ask<v1::ReleaseResponse>(acme, Verb::kRelease, release)->released(), 1u);
}

TEST_F(TcpVerbsTest, ATenantFindsNoneOfAnothersBlocks) {
  const AttachmentId acme = Attach("acme"), other = Attach("other");
  Store(acme, keys_);
  EXPECT_EQ(*Lookup(other, keys_), 0u);
  EXPECT_EQ(Acquire(other, keys_)->run_blocks(), 0u);
  v1::LookupRequest request;
  request.set_attachment_id(acme.value);
  request.set_spec_handle(Open(other));
  request.set_keys(PackKeys(keys_));
  EXPECT_EQ(Ask<v1::LookupResponse>(other, Verb::kLookup, request)->run_blocks(), 0u);
}

TEST_F(TcpVerbsTest, WhoSpeaksForAnotherTenantReadsItsBlocks) {
  Store(Attach("acme"), keys_);
  EXPECT_EQ(*Lookup(Attach("fleet", "acme"), keys_), 3u);
  EXPECT_EQ(*Lookup(Attach("fleet", "other"), keys_), 0u);
}

TEST_F(TcpVerbsTest, AnAttachmentThatIsOverIsUnknown) {
  const AttachmentId attachment = Attach("acme");
  EXPECT_TRUE(verbs_.Answer(attachment, Verb::kRelease, "").ok());
  Detach(attachment);
  for (const Verb verb : kAll) {
    const absl::Status status = verbs_.Answer(attachment, verb, "").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(RefusalReason(status), "ATTACHMENT_UNKNOWN");
  }
}

TEST_F(TcpVerbsTest, AShardThatDrainsTakesNothingNewAndIsReadOn) {
  const AttachmentId attachment = Attach("acme");
  Store(attachment, keys_);
  core_.draining = true;
  EXPECT_EQ(RefusalReason(Reserve(attachment, testing::ChainNamed("late", 1)).status()),
            "DRAINING");
  EXPECT_EQ(Acquire(attachment, keys_)->run_blocks(), 3u);
}

class BusyTcpVerbsTest : public TcpVerbsTest {
 protected:
  BusyTcpVerbsTest() : TcpVerbsTest(AdmissionLimits{.calls_max = 2, .write_calls_max = 1}) {}
};

TEST_F(BusyTcpVerbsTest, OverloadRefusesWritesFirstAndCountsWithGrpcsCalls) {
  const AttachmentId attachment = Attach("acme");
  const auto reason = [&](Verb verb) {
    return RefusalReason(verbs_.Answer(attachment, verb, "").status());
  };
  Admission::Ticket one = *core_.admission->Admit(WorkKind::kReadCall);
  for (const Verb verb : kAll) {
    const bool writes = verb == Verb::kReserve || verb == Verb::kCommit;
    EXPECT_EQ(reason(verb) == "OVERLOAD", writes) << static_cast<uint32_t>(verb);
  }
  Admission::Ticket two = *core_.admission->Admit(WorkKind::kReadCall);
  for (const Verb verb : kAll) EXPECT_EQ(reason(verb), "OVERLOAD");
  EXPECT_EQ(told_.back().second, absl::StatusCode::kResourceExhausted);
  one.reset();
  two.reset();
  for (const Verb verb : kAll) EXPECT_NE(reason(verb), "OVERLOAD");
  EXPECT_EQ(core_.admission->in_flight(), 0u);
}

}  // namespace
}  // namespace reprise::shard
