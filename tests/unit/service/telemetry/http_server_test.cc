#include "service/telemetry/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::telemetry {
namespace {

// Only a hang reaches it.
constexpr absl::Duration kPatience = absl::Seconds(60);

class Client {
 public:
  explicit Client(const std::string& address)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    connected_ = ::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  bool Say(const std::string& text) {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }
  // All that comes until the server closes; nullopt when it does not.
  std::optional<std::string> Hear() {
    std::string heard;
    const absl::Time end = absl::Now() + kPatience;
    char buffer[65536];
    while (true) {
      pollfd ready{socket_, POLLIN, 0};
      const int64_t left = absl::ToInt64Milliseconds(end - absl::Now());
      if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0) return std::nullopt;
      const ssize_t bytes = ::recv(socket_, buffer, sizeof(buffer), 0);
      if (bytes <= 0) return heard;
      heard.append(buffer, static_cast<size_t>(bytes));
    }
  }

 private:
  int socket_;
  bool connected_ = false;
};

class HttpServerTest : public ::testing::Test {
 protected:
  std::string Get(const std::string& path, const std::string& method = "GET") {
    Client client(server_->address());
    if (!client.Say(absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: x\r\n\r\n"))) return "";
    return client.Hear().value_or("never closed");
  }

  std::atomic<int> asked_{0};
  std::string body_ = "pong\n";
  std::unique_ptr<HttpServer> server_ =
      *HttpServer::Start({.listen = "127.0.0.1:0", .answer = [this](const HttpRequest& request) {
                            ++asked_;
                            return HttpResponse{.body = request.path == "/big" ? body_ : "pong\n"};
                          }});
};

TEST_F(HttpServerTest, AnswersGetAndHeadAndClosesTheConnection) {
  EXPECT_TRUE(absl::EndsWith(Get("/"), "\r\n\r\npong\n"));
  EXPECT_TRUE(absl::EndsWith(Get("/", "HEAD"), "\r\n\r\n"));
  EXPECT_EQ(asked_, 2);
  EXPECT_TRUE(absl::StartsWith(Get("/", "POST"), "HTTP/1.1 405 "));
  EXPECT_TRUE(absl::StartsWith(Get("nonsense"), "HTTP/1.1 400 "));
  EXPECT_EQ(asked_, 2);
}

TEST_F(HttpServerTest, ALongAnswerComesWholeAtTheReadersPace) {
  body_ = std::string(32 << 20, 'x');
  const std::string answer = Get("/big");
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, body_.size());
}

TEST_F(HttpServerTest, ARequestThatComesInPiecesIsAnswered) {
  Client client(server_->address());
  for (const char c : std::string("GET / HTTP/1.1\r\n\r\n")) {
    ASSERT_TRUE(client.Say(std::string(1, c)));
  }
  EXPECT_TRUE(absl::EndsWith(client.Hear().value_or(""), "pong\n"));
}

TEST_F(HttpServerTest, HeadersWithoutEndAreRefusedAtTheBound) {
  Client client(server_->address());
  ASSERT_TRUE(client.Say("GET / HTTP/1.1\r\n"));
  // The answer may come, and the connection end, while this goes on.
  const std::string header = absl::StrCat("A: ", std::string(1000, 'x'), "\r\n");
  for (size_t sent = 0; sent < 2 * limits::kStatusRequestBytesMax && client.Say(header);
       sent += header.size()) {
  }
  const std::string answer = client.Hear().value_or("never closed");
  EXPECT_TRUE(answer.empty() || absl::StartsWith(answer, "HTTP/1.1 431 ")) << answer;
  EXPECT_EQ(asked_, 0);
}

// More silent clients than there are connections, and a probe is answered all the same: again and
// again, while they stay.
TEST_F(HttpServerTest, SilentClientsKeepNobodyFromAnAnswer) {
  std::vector<std::unique_ptr<Client>> silent;
  for (size_t i = 0; i < 4 * limits::kStatusConnectionsMax; ++i) {
    silent.push_back(std::make_unique<Client>(server_->address()));
    ASSERT_TRUE(silent.back()->connected());
    silent.back()->Say("GET /livez HTTP/1.1\r\nX: ");
    if (i % 16 == 0) {
      ASSERT_TRUE(absl::EndsWith(Get("/livez"), "pong\n")) << i;
    }
  }
  // The ones that came first were closed for those that came later.
  EXPECT_EQ(silent.front()->Hear(), std::optional<std::string>(""));
}

TEST_F(HttpServerTest, AClientThatTricklesIsClosedWhenItsTimeIsOver) {
  Client client(server_->address());
  std::atomic<bool> closed{false};
  // A byte now and then would begin a read timeout anew.
  std::thread trickle([&] {
    const absl::Time end = absl::Now() + kPatience;
    while (!closed && absl::Now() < end && client.Say("G")) ::poll(nullptr, 0, 50);
  });
  EXPECT_EQ(client.Hear(), std::optional<std::string>(""));
  closed = true;
  trickle.join();
  EXPECT_EQ(asked_, 0);
}

TEST_F(HttpServerTest, AnAnswerThatNobodyReadsHoldsUpNobody) {
  body_ = std::string(64 << 20, 'x');
  Client deaf(server_->address());
  ASSERT_TRUE(deaf.Say("GET /big HTTP/1.1\r\n\r\n"));
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(absl::EndsWith(Get("/"), "pong\n"));
}

TEST_F(HttpServerTest, EndsWithClientsStillThere) {
  Client half(server_->address());
  ASSERT_TRUE(half.Say("GET "));
  server_.reset();
  EXPECT_EQ(half.Hear(), std::optional<std::string>(""));
}

TEST(HttpServer, AnAddressOfOthersIsRefusedUnlessItIsToBePublic) {
  const auto start = [](const std::string& listen, bool is_public) {
    return HttpServer::Start({.listen = listen, .public_address = is_public}).status();
  };
  EXPECT_EQ(start("0.0.0.0:0", false).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(start("0.0.0.0:0", false).message()),
              ::testing::HasSubstr("--status-public"));
  EXPECT_TRUE(start("0.0.0.0:0", true).ok());
  EXPECT_TRUE(start("localhost:0", false).ok());
  for (const char* none : {"", "127.0.0.1", ":80", "127.0.0.1:x", "127.0.0.1:70000", "a b:1"}) {
    EXPECT_EQ(start(none, true).code(), absl::StatusCode::kInvalidArgument) << none;
  }
}

TEST(HttpServer, APortInUseIsRefused) {
  const auto answer = [](const HttpRequest&) { return HttpResponse(); };
  const auto first = HttpServer::Start({.listen = "127.0.0.1:0", .answer = answer});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(HttpServer::Start({.listen = (*first)->address(), .answer = answer}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(HttpServer::Check((*first)->address(), false).code(), absl::StatusCode::kUnavailable);
}

TEST(HttpServer, APortThatIsFreeIsStillFreeAfterItWasChecked) {
  const auto answer = [](const HttpRequest&) { return HttpResponse(); };
  std::string address;
  {
    const auto first = HttpServer::Start({.listen = "127.0.0.1:0", .answer = answer});
    ASSERT_TRUE(first.ok());
    address = (*first)->address();
  }
  EXPECT_TRUE(HttpServer::Check(address, false).ok());
  EXPECT_TRUE(HttpServer::Start({.listen = address, .answer = answer}).ok());
}

}  // namespace
}  // namespace reprise::telemetry
