// Questions to routers over gRPC, in the background: who answers when one is down or hangs, and
// what is left of them when their client goes.
#include "client/cpp/router_client.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"
#include "proto/wire/serving.h"
#include "proto/wire/status.h"
#include "reprise/v1/router.grpc.pb.h"

namespace reprise::client {
namespace {

absl::Time Soon() {
  return absl::Now() + absl::Seconds(60);
}

// Says that it is every session's home itself; or holds what it is asked, as one that hangs.
class FakeRouter final : public v1::RouterService::CallbackService {
 public:
  explicit FakeRouter(std::string name)
      : name_(std::move(name)),
        server_(*wire::Listen({.listen = "127.0.0.1:0",
                               .services = {this},
                               .name = v1::RouterService::service_full_name(),
                               .credentials = nullptr,
                               .call_ended = nullptr})) {}
  ~FakeRouter() override {
    Hang(false);
    server_.server->Shutdown(absl::ToChronoTime(absl::Now()));
  }

  const std::string& address() const { return server_.address; }

  grpc::ServerUnaryReactor* RouteSession(grpc::CallbackServerContext*,
                                         const v1::RouteSessionRequest*,
                                         v1::RouteSessionResponse* response) override {
    response->mutable_home()->set_shard_id(name_);
    response->mutable_home()->set_address(absl::StrCat(name_, ":1"));
    auto* const reactor = new Question(*this);
    absl::MutexLock lock(&mu_);
    ++asked_;
    if (hangs_) {
      held_.push_back(reactor);
    } else {
      reactor->Finish(wire::ToGrpcStatus(refusal_));
    }
    return reactor;
  }

  // Answers what it holds when it does not any more.
  void Hang(bool hangs) {
    absl::MutexLock lock(&mu_);
    hangs_ = hangs;
    if (hangs) return;
    for (Question* const question : held_) question->Finish(wire::ToGrpcStatus(refusal_));
    held_.clear();
  }
  void Refuse(absl::Status with) {
    absl::MutexLock lock(&mu_);
    refusal_ = std::move(with);
  }
  size_t asked() const {
    absl::MutexLock lock(&mu_);
    return asked_;
  }
  bool AwaitAsked(size_t count) const { return Await(asked_, count); }
  bool AwaitCancelled(size_t count) const { return Await(cancelled_, count); }

 private:
  class Question final : public grpc::ServerUnaryReactor {
   public:
    explicit Question(FakeRouter& router) : router_(router) {}
    void OnCancel() override {
      absl::MutexLock lock(&router_.mu_);
      ++router_.cancelled_;
    }
    void OnDone() override { delete this; }

   private:
    FakeRouter& router_;
  };

  // False when that does not come about.
  bool Await(const size_t& number, size_t count) const {
    struct Awaited {
      const size_t& number;
      const size_t count;
    } awaited{number, count};
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(
                                    +[](Awaited* it) { return it->number >= it->count; }, &awaited),
                                absl::Seconds(60));
  }

  const std::string name_;
  mutable absl::Mutex mu_;
  bool hangs_ = false;
  absl::Status refusal_;
  size_t asked_ = 0;
  size_t cancelled_ = 0;
  std::vector<Question*> held_;
  const wire::Listening server_;
};

// Who was said to be home, also when nobody waits.
class Heard {
 public:
  RouterClient::RouteHeard Hear() {
    return [this](const Route& route) {
      absl::MutexLock lock(&mu_);
      homes_.push_back(route.order.front().id.name);
    };
  }
  std::vector<std::string> homes() const {
    absl::MutexLock lock(&mu_);
    return homes_;
  }
  bool Await(size_t count) const {
    struct Awaited {
      const std::vector<std::string>& homes;
      const size_t count;
    } awaited{homes_, count};
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(
        absl::Condition(
            +[](Awaited* it) { return it->homes.size() >= it->count; }, &awaited),
        absl::Seconds(60));
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<std::string> homes_;
};

class RouterClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<RouterClient> ClientOf(std::vector<std::string> addresses) {
    return MakeGrpcRouterClient(std::move(addresses), nullptr);
  }
  std::unique_ptr<PendingRoute> Ask(RouterClient& client, absl::Time deadline = Soon()) {
    return client.StartRouteSession({.session = "user"}, deadline, heard_.Hear());
  }
  static std::string HomeOf(const absl::StatusOr<Route>& route) {
    return route.ok() ? route->order.front().id.name : route.status().ToString();
  }
  // An address that nobody listens on.
  static std::string Nowhere() {
    return absl::StrCat("127.0.0.1:", lanes::tcp::Listen("127.0.0.1", 0)->port);
  }

  Heard heard_;  // outlives the clients
  FakeRouter first_{"first"}, second_{"second"};
};

TEST_F(RouterClientTest, AnAnswerIsHeardBeforeItIsWaitedForAndOnce) {
  const auto client = ClientOf({first_.address()});
  const auto asked = Ask(*client);
  EXPECT_EQ(HomeOf(asked->Await(Soon())), "first");
  EXPECT_EQ(heard_.homes(), std::vector<std::string>{"first"});
  EXPECT_EQ(first_.asked(), 1u);
}

TEST_F(RouterClientTest, AnAnswerIsHeardThoughNobodyWaits) {
  const auto client = ClientOf({first_.address()});
  first_.Hang(true);
  Ask(*client).reset();
  ASSERT_TRUE(first_.AwaitAsked(1));
  EXPECT_TRUE(heard_.homes().empty());
  first_.Hang(false);
  EXPECT_TRUE(heard_.Await(1));
}

TEST_F(RouterClientTest, WhoWaitsIsAnsweredByTheSecondWhenTheFirstIsDown) {
  const auto client = ClientOf({Nowhere(), second_.address()});
  EXPECT_EQ(HomeOf(Ask(*client)->Await(Soon())), "second");
  EXPECT_EQ(heard_.homes(), std::vector<std::string>{"second"});
  // From then on it is asked first.
  EXPECT_EQ(HomeOf(Ask(*client)->Await(Soon())), "second");
  EXPECT_EQ(second_.asked(), 2u);
}

TEST_F(RouterClientTest, AFirstThatHangsLeavesTimeForTheSecond) {
  const auto client = ClientOf({first_.address(), second_.address()});
  first_.Hang(true);
  EXPECT_EQ(HomeOf(Ask(*client, absl::Now() + absl::Seconds(1))->Await(Soon())), "second");
  EXPECT_EQ(first_.asked(), 1u);
  EXPECT_EQ(heard_.homes(), std::vector<std::string>{"second"});
}

TEST_F(RouterClientTest, WhoWaitsForOneThatHangsIsToldSoInTime) {
  const auto client = ClientOf({first_.address()});
  first_.Hang(true);
  const auto asked = Ask(*client);
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(asked->Await(absl::Now() + absl::Milliseconds(50)).status()));
  EXPECT_TRUE(heard_.homes().empty());
}

TEST_F(RouterClientTest, ARefusalIsAnAnswerAndNoOtherRouterIsAsked) {
  const auto client = ClientOf({first_.address(), second_.address()});
  first_.Refuse(Refusal(absl::StatusCode::kUnavailable, "NO_SHARD", "no shard is alive"));
  EXPECT_EQ(RefusalReason(Ask(*client)->Await(Soon()).status()), "NO_SHARD");
  EXPECT_EQ(second_.asked(), 0u);
  EXPECT_TRUE(heard_.homes().empty());
}

TEST_F(RouterClientTest, RoutersThatFailAreLeftOutAndWhoWaitsIsToldWhy) {
  const auto client = ClientOf({Nowhere()});
  for (int i = 0; i < limits::kBreakerFailuresMax; ++i) {
    EXPECT_TRUE(absl::IsUnavailable(Ask(*client)->Await(Soon()).status())) << i;
  }
  EXPECT_EQ(RefusalReason(Ask(*client)->Await(Soon()).status()), "ROUTERS_OUT");
}

// With no deadline that would end them.
TEST_F(RouterClientTest, QuestionsEndWithTheirClient) {
  auto client = ClientOf({first_.address()});
  first_.Hang(true);
  auto waited_for = Ask(*client, absl::InfiniteFuture());
  for (int i = 0; i < 3; ++i) Ask(*client, absl::InfiniteFuture()).reset();
  ASSERT_TRUE(first_.AwaitAsked(4));
  waited_for.reset();
  client.reset();
  EXPECT_TRUE(first_.AwaitCancelled(4));
  EXPECT_TRUE(heard_.homes().empty());
}

TEST_F(RouterClientTest, QuestionsThatNobodyAnswersAreBoundedAndThenAskedByWhoWaits) {
  const auto client = ClientOf({first_.address()});
  first_.Hang(true);
  for (size_t i = 0; i < limits::kClientQueueJobsMax; ++i) {
    Ask(*client, absl::InfiniteFuture()).reset();
  }
  ASSERT_TRUE(first_.AwaitAsked(limits::kClientQueueJobsMax));
  std::vector<std::unique_ptr<PendingRoute>> more;
  for (int i = 0; i < 3; ++i) more.push_back(Ask(*client));
  first_.Hang(false);
  EXPECT_EQ(HomeOf(more.front()->Await(Soon())), "first");
  EXPECT_TRUE(heard_.Await(limits::kClientQueueJobsMax + 1));
  EXPECT_EQ(first_.asked(), limits::kClientQueueJobsMax + 1);
  // And there is room again.
  Ask(*client).reset();
  EXPECT_TRUE(heard_.Await(limits::kClientQueueJobsMax + 2));
}

}  // namespace
}  // namespace reprise::client
