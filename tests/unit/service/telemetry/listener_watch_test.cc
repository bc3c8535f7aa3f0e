#include "service/telemetry/listener_watch.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/types/limits.h"
#include "tests/support/manual_clock.h"

namespace reprise::telemetry {
namespace {

constexpr char kTable[] =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
    "   0: 0100007F:1B9E 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0\n"
    "   1: 00000000:1B9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
    "   2: 0100007F:1B9E 0100007F:C001 01 00000000:00000FFF 00:00000000 00000000     0\n"
    "   3: 0200007F:1B9E 00000000:0000 0A 00000000:00000010 00:00000000 00000000     0\n";

TEST(ParseBacklog, AddsUpTheListenersOfThePortAlone) {
  EXPECT_EQ(ParseBacklog(kTable, 0x1B9E), std::optional<uint64_t>(3 + 16));
  EXPECT_EQ(ParseBacklog(kTable, 0x1B9F), std::optional<uint64_t>(0));
  EXPECT_EQ(ParseBacklog(kTable, 0xC001), std::nullopt);
  for (const char* text : {"", "\n\n", "a b c d e f", "0: x:1B9E 0 0A 0:zz"}) {
    EXPECT_EQ(ParseBacklog(text, 0x1B9E).value_or(0), 0u) << text;
  }
}

class ListenerWatchTest : public ::testing::Test {
 protected:
  ListenerWatchTest() {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof(address_);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address_), &bytes);
  }
  ~ListenerWatchTest() override {
    ::close(client_);
    if (listener_ >= 0) ::close(listener_);
  }
  void Connect() {
    ASSERT_EQ(::connect(client_, reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0);
  }

  int listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int client_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address_{};
  testing::ManualClock clock_;
};

TEST_F(ListenerWatchTest, ConnectionsThatWaitTooLongAreNoticedAndForgiven) {
  ListenerWatch watch(absl::StrCat("127.0.0.1:", ntohs(address_.sin_port)), clock_);
  EXPECT_EQ(watch.Look(), "");
  Connect();
  EXPECT_EQ(watch.Look(), "") << "it has only begun to wait";
  clock_.Advance(limits::kLivenessSilenceMax - absl::Seconds(1));
  EXPECT_EQ(watch.Look(), "");
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(watch.Look(), ::testing::HasSubstr("takes in no connection"));
  ::close(::accept(listener_, nullptr, nullptr));
  EXPECT_EQ(watch.Look(), "");
  clock_.Advance(limits::kLivenessSilenceMax);
  EXPECT_EQ(watch.Look(), "");
}

TEST_F(ListenerWatchTest, AListenerThatIsClosedStopsAndIsNotStuck) {
  ListenerWatch watch(absl::StrCat("127.0.0.1:", ntohs(address_.sin_port)), clock_);
  Connect();
  EXPECT_EQ(watch.Look(), "");
  ::close(std::exchange(listener_, -1));
  clock_.Advance(limits::kLivenessSilenceMax);
  EXPECT_EQ(watch.Look(), "");
}

}  // namespace
}  // namespace reprise::telemetry
