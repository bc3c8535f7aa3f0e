// Links to shards whose tcp port answers no verbs, or not as it should: gRPC is asked.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "cluster/lanes/tcp/tcp_server.h"
#include "cluster/link/shard_link.h"
#include "proto/types/refusal.h"
#include "proto/wire/serving.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/support/memory_lane_host.h"
#include "tests/support/stored_chain.h"

namespace reprise::testing {
namespace {

constexpr AttachmentId kAttachment(7);
constexpr uint32_t kOverGrpc = 70, kOnPort = 20;  // run_blocks of Lookup

// A shard whose Lookup says over which way it was asked.
class PortedShard final : public v1::ShardService::Service, private lanes::VerbHost {
 public:
  explicit PortedShard(bool says_so = true) : says_so_(says_so) {
    REPRISE_CHECK(port_->Welcome(kAttachment).ok());
    port_->AnswerVerbs(this);
  }
  ~PortedShard() override { server_.server->Shutdown(absl::ToChronoTime(absl::Now())); }

  std::unique_ptr<cluster::ShardLink> Connect() {
    auto link = cluster::ShardLink::Connect(
        {.address = server_.address, .lanes = {LaneKind::kTcp, LaneKind::kStream}}, Soon());
    REPRISE_CHECK(link.ok());
    return *std::move(link);
  }
  lanes::TcpServer& port() { return *port_; }
  int grpc_lookups() const { return grpc_lookups_; }
  // Instead of a right answer.
  void AnswerWith(std::function<absl::StatusOr<std::string>()> answer) {
    answer_ = std::move(answer);
  }

  grpc::Status Attach(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream) override {
    v1::AttachRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    v1::AttachResponse response;
    v1::AttachResponse::Welcome& welcome = *response.mutable_welcome();
    welcome.set_attachment_id(kAttachment.value);
    welcome.set_shard_id("ported");
    welcome.set_keep_alive_interval_ms(10'000);
    welcome.add_lanes(v1::LANE_KIND_TCP);
    welcome.add_lanes(v1::LANE_KIND_STREAM);
    welcome.set_tcp_port(port_->port());
    welcome.set_tcp_verbs(says_so_);
    stream->Write(response);
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest* request,
                      v1::LookupResponse* response) override {
    EXPECT_EQ(request->attachment_id(), kAttachment.value);
    ++grpc_lookups_;
    response->set_run_blocks(kOverGrpc);
    return grpc::Status::OK;
  }

 private:
  absl::StatusOr<std::string> Answer(AttachmentId, lanes::tcp::Verb, absl::string_view) override {
    if (answer_) return answer_();
    v1::LookupResponse response;
    response.set_run_blocks(kOnPort);
    return response.SerializeAsString();
  }

  const bool says_so_;
  std::function<absl::StatusOr<std::string>()> answer_;  // set while nobody asks
  std::atomic<int> grpc_lookups_{0};
  MemoryLaneHost host_{kAttachment};
  const std::unique_ptr<lanes::TcpServer> port_ = *lanes::TcpServer::Create({.host = &host_});
  const wire::Listening server_ = *wire::Listen({.listen = "127.0.0.1:0",
                                                 .services = {this},
                                                 .name = v1::ShardService::service_full_name(),
                                                 .credentials = nullptr,
                                                 .call_ended = nullptr});
};

absl::StatusOr<uint32_t> Lookup(cluster::ShardLink& link) {
  return link.Lookup(SpecHandle(1), {}, Soon());
}

// Waits until the link's lookups take the port.
void AwaitPort(cluster::ShardLink& link) {
  const absl::Time end = Soon();
  uint32_t answer = 0;
  while (answer != kOnPort && absl::Now() < end) answer = *Lookup(link);
  ASSERT_EQ(answer, kOnPort) << "the port is not used";
}

TEST(TcpVerbsFallbackTest, AShardThatDoesNotSayThatItsPortAnswersVerbsIsAskedOverGrpc) {
  PortedShard silent(/*says_so=*/false);
  const auto link = silent.Connect();
  // Its blocks take the port.
  const absl::Time end = Soon();
  while (silent.port().use().idle == 0 && absl::Now() < end) std::this_thread::yield();
  ASSERT_EQ(silent.port().use().idle, 1u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(*Lookup(*link), kOverGrpc);
  EXPECT_EQ(silent.grpc_lookups(), 50);
  EXPECT_EQ(silent.port().use().verbs, 0u);
}

TEST(TcpVerbsFallbackTest, AShardThatSaysSoIsAskedOnItsPortOnceThatWasReached) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  const int over_grpc = shard.grpc_lookups();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(*Lookup(*link), kOnPort);
  EXPECT_EQ(shard.grpc_lookups(), over_grpc);
}

TEST(TcpVerbsFallbackTest, WhatAPortThatDiesInTheMiddleWasAskedIsAskedOverGrpc) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  std::atomic<int> heard{0};
  shard.AnswerWith([&]() -> absl::StatusOr<std::string> {
    ++heard;
    shard.port().EndAttachment(kAttachment);
    return std::string();
  });
  const int over_grpc = shard.grpc_lookups();
  EXPECT_EQ(*Lookup(*link), kOverGrpc);
  EXPECT_EQ(heard, 1);
  EXPECT_EQ(shard.grpc_lookups(), over_grpc + 1);
  // And the port is left alone.
  EXPECT_EQ(*Lookup(*link), kOverGrpc);
  EXPECT_EQ(heard, 1);
  EXPECT_TRUE(link->alive());
}

TEST(TcpVerbsFallbackTest, WhatAPortDoesNotAnswerIsAskedOverGrpc) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  shard.port().AnswerVerbs(nullptr);
  const uint64_t verbs = shard.port().use().verbs;
  EXPECT_EQ(*Lookup(*link), kOverGrpc);
  EXPECT_EQ(shard.port().use().verbs, verbs + 1);
}

TEST(TcpVerbsFallbackTest, ARefusalOnThePortIsTheAnswer) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  shard.AnswerWith([] { return Refusal(absl::StatusCode::kResourceExhausted, "OVERLOAD", "no"); });
  const int over_grpc = shard.grpc_lookups();
  EXPECT_EQ(RefusalReason(Lookup(*link).status()), "OVERLOAD");
  EXPECT_EQ(shard.grpc_lookups(), over_grpc);
}

TEST(TcpVerbsFallbackTest, AnAnswerThatIsNoneIsAnErrorAndNoWrongRun) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  shard.AnswerWith([]() -> absl::StatusOr<std::string> { return std::string("\xff\xff\xff"); });
  EXPECT_EQ(RefusalReason(Lookup(*link).status()), "TCP_ANSWER");
}

TEST(TcpVerbsFallbackTest, ALinkWhoseAttachmentThePortDoesNotKnowIsOver) {
  PortedShard shard;
  const auto link = shard.Connect();
  AwaitPort(*link);
  shard.AnswerWith(
      [] { return Refusal(absl::StatusCode::kNotFound, "ATTACHMENT_UNKNOWN", "who?"); });
  EXPECT_EQ(RefusalReason(Lookup(*link).status()), "LINK_DOWN");
  EXPECT_FALSE(link->alive());
}

}  // namespace
}  // namespace reprise::testing
