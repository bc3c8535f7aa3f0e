#include "cluster/lanes/tcp/tcp_tls.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane_status.h"
#include "gtest/gtest.h"
#include "tests/support/memory_lane_host.h"

namespace reprise::lanes::tcp {
namespace {

constexpr AttachmentId kAttachment(31);

MonotonicDeadline Soon() {
  return MonotonicDeadline::After(absl::Seconds(30));
}

std::pair<Descriptor, Descriptor> Pair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

// Carries bytes between two sockets, and lets a test see and change those that the caller sends.
class Wire {
 public:
  using Change = std::function<void(std::span<uint8_t> bytes, uint64_t at)>;
  explicit Wire(Change change = nullptr) : change_(std::move(change)) {
    std::tie(caller_, caller_side_) = Pair();
    std::tie(shard_, shard_side_) = Pair();
    thread_ = std::thread([this] { Carry(); });
  }
  ~Wire() {
    stop_ = true;
    ::shutdown(caller_side_.get(), SHUT_RDWR);
    thread_.join();
  }

  const Descriptor& caller() const { return caller_; }
  const Descriptor& shard() const { return shard_; }
  std::string seen() const {
    absl::MutexLock lock(&mu_);
    return seen_;
  }

 private:
  void Carry() {
    std::array<uint8_t, 4096> bytes;
    while (!stop_) {
      std::array<pollfd, 2> waiting{pollfd{caller_side_.get(), POLLIN, 0},
                                    pollfd{shard_side_.get(), POLLIN, 0}};
      ::poll(waiting.data(), waiting.size(), 100);
      for (const bool up : {true, false}) {
        const Descriptor& from = up ? caller_side_ : shard_side_;
        const Descriptor& to = up ? shard_side_ : caller_side_;
        const ssize_t n = ::recv(from.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (n == 0) ::shutdown(to.get(), SHUT_WR);
        if (n <= 0) continue;
        const auto got = std::span(bytes).first(static_cast<size_t>(n));
        if (up) See(got);
        for (size_t sent = 0; sent < got.size() && !stop_;) {
          const ssize_t m =
              ::send(to.get(), got.data() + sent, got.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
          if (m > 0) sent += static_cast<size_t>(m);
          if (m < 0 && !WouldBlock()) return;
        }
      }
    }
  }
  void See(std::span<uint8_t> bytes) {
    absl::MutexLock lock(&mu_);
    seen_.append(bytes.begin(), bytes.end());
    if (change_) change_(bytes, seen_.size() - bytes.size());
  }

  const Change change_;
  Descriptor caller_, caller_side_, shard_, shard_side_;
  std::atomic<bool> stop_ = false;
  mutable absl::Mutex mu_;
  std::string seen_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

// Both ends after their handshake.
struct Sessions {
  absl::StatusOr<std::unique_ptr<TlsSession>> caller;
  absl::StatusOr<std::unique_ptr<TlsSession>> shard;
};

class TcpTlsTest : public ::testing::Test {
 protected:
  Sessions Meet(const Wire& wire, const TcpKey& key) {
    Sessions sessions;
    std::thread shard([&] {
      sessions.shard = TlsSession::Accept(*shard_, wire.shard(), Soon());
      if (!sessions.shard.ok()) ::shutdown(wire.shard().get(), SHUT_RDWR);
    });
    sessions.caller = TlsSession::Connect(*caller_, wire.caller(), key, Soon());
    if (!sessions.caller.ok()) ::shutdown(wire.caller().get(), SHUT_RDWR);
    shard.join();
    return sessions;
  }
  // What arrives of `bytes`; its status when it does not.
  static absl::StatusOr<std::vector<uint8_t>> Carry(const Wire& wire, Sessions& sessions,
                                                    std::span<const uint8_t> bytes) {
    absl::Status sent;
    std::thread sender([&] {
      sent = (*sessions.caller)->Send(wire.caller(), bytes, {Soon()});
      if (sent.ok()) sent = (*sessions.caller)->Flush(wire.caller(), {Soon()});
    });
    std::vector<uint8_t> got(bytes.size());
    const absl::Status received = (*sessions.shard)->Receive(wire.shard(), got, {Soon()});
    if (!received.ok()) ::shutdown(wire.shard().get(), SHUT_RDWR);
    sender.join();
    if (!received.ok()) return received;
    EXPECT_TRUE(sent.ok()) << sent;
    return got;
  }

  TcpKeys keys_{/*encrypted=*/true};
  const TcpKey key_ = **keys_.Add(kAttachment);
  const std::unique_ptr<const TlsContext> caller_ = *TlsContext::ForCaller();
  const std::unique_ptr<const TlsContext> shard_ = *TlsContext::ForShard(keys_);
};

TEST_F(TcpTlsTest, WhoHasTheKeyIsKnownByItAndBytesArriveAsTheyWere) {
  const Wire wire;
  Sessions sessions = Meet(wire, key_);
  ASSERT_TRUE(sessions.caller.ok()) << sessions.caller.status();
  ASSERT_TRUE(sessions.shard.ok()) << sessions.shard.status();
  EXPECT_EQ((*sessions.shard)->attachment(), kAttachment);
  const std::vector<uint8_t> block = testing::PatternBlock(3, 0, 3'000'001);
  const auto got = Carry(wire, sessions, block);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, block);
}

TEST_F(TcpTlsTest, WhatWasDecryptedAndNotReceivedIsPending) {
  const Wire wire;
  Sessions sessions = Meet(wire, key_);
  ASSERT_TRUE(sessions.caller.ok() && sessions.shard.ok());
  EXPECT_FALSE((*sessions.shard)->Pending());
  const std::vector<uint8_t> bytes(100, 7);
  ASSERT_TRUE((*sessions.caller)->Send(wire.caller(), bytes, {Soon()}).ok());
  ASSERT_TRUE((*sessions.caller)->Flush(wire.caller(), {Soon()}).ok());
  std::vector<uint8_t> got(1);
  ASSERT_TRUE((*sessions.shard)->Receive(wire.shard(), got, {Soon()}).ok());
  EXPECT_TRUE((*sessions.shard)->Pending());
}

TEST_F(TcpTlsTest, WhatTravelsIsNeitherTheBytesNorTheKeyNorTheAttachment) {
  const Wire wire;
  Sessions sessions = Meet(wire, key_);
  ASSERT_TRUE(sessions.caller.ok() && sessions.shard.ok());
  const std::string secret = "the quick brown fox jumps over the lazy dog";
  const auto* const bytes = reinterpret_cast<const uint8_t*>(secret.data());
  ASSERT_TRUE(Carry(wire, sessions, {bytes, secret.size()}).ok());
  const std::string seen = wire.seen();
  EXPECT_GT(seen.size(), secret.size());
  EXPECT_EQ(seen.find("quick"), std::string::npos);
  EXPECT_EQ(seen.find(std::string(key_.begin(), key_.begin() + 8)), std::string::npos);
  const uint64_t id = kAttachment.value;
  EXPECT_EQ(seen.find(std::string(reinterpret_cast<const char*>(&id), sizeof(id))),
            std::string::npos);
}

TEST_F(TcpTlsTest, AnotherKeyIsNoKey) {
  TcpKey other = key_;
  other[7] ^= 1;
  const Wire wire;
  const Sessions sessions = Meet(wire, other);
  EXPECT_TRUE(IsLaneDown(sessions.caller.status())) << sessions.caller.status();
  EXPECT_TRUE(IsLaneDown(sessions.shard.status())) << sessions.shard.status();
}

TEST_F(TcpTlsTest, AKeyIsGoodForNothingOnceItsAttachmentIsOver) {
  keys_.Remove(kAttachment);
  const Wire wire;
  const Sessions sessions = Meet(wire, key_);
  EXPECT_FALSE(sessions.caller.ok());
  EXPECT_FALSE(sessions.shard.ok());
}

TEST_F(TcpTlsTest, AKeyIsFoundByItsWholeNameAlone) {
  const TcpKeyName name = NameOf(key_);
  ASSERT_TRUE(keys_.Find(name).has_value());
  EXPECT_EQ(keys_.Find(name)->attachment, kAttachment);
  EXPECT_FALSE(keys_.Find(std::span(name).first(15)).has_value());
  EXPECT_FALSE(keys_.Find({}).has_value());
  keys_.Remove(kAttachment);
  EXPECT_FALSE(keys_.Find(name).has_value() || keys_.Knows(kAttachment));
  EXPECT_NE(**keys_.Add(AttachmentId(32)), key_);
}

TEST_F(TcpTlsTest, AShardThatHasNotTheKeyIsNotSpokenTo) {
  TcpKeys none(/*encrypted=*/true);
  const auto impostor = *TlsContext::ForShard(none);
  const Wire wire;
  std::thread shard([&] {
    EXPECT_FALSE(TlsSession::Accept(*impostor, wire.shard(), Soon()).ok());
    ::shutdown(wire.shard().get(), SHUT_RDWR);
  });
  EXPECT_FALSE(TlsSession::Connect(*caller_, wire.caller(), key_, Soon()).ok());
  ::shutdown(wire.caller().get(), SHUT_RDWR);
  shard.join();
}

// A key pair and a certificate of one's own, as anybody can make.
void HaveCertificate(SSL_CTX* context) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = X509_new();
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  ASSERT_GT(X509_sign(certificate, key, EVP_sha256()), 0);
  ASSERT_EQ(SSL_CTX_use_certificate(context, certificate), 1);
  ASSERT_EQ(SSL_CTX_use_PrivateKey(context, key), 1);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

// A server may pass over the key that it is offered and show a certificate instead.
TEST_F(TcpTlsTest, ACertificateIsNoKey) {
  TcpKeys none(/*encrypted=*/true);
  const auto impostor = *TlsContext::ForShard(none);
  HaveCertificate(impostor->get());
  const Wire wire;
  std::thread shard([&] {
    EXPECT_FALSE(TlsSession::Accept(*impostor, wire.shard(), Soon()).ok());
    ::shutdown(wire.shard().get(), SHUT_RDWR);
  });
  EXPECT_TRUE(IsLaneDown(TlsSession::Connect(*caller_, wire.caller(), key_, Soon()).status()));
  ::shutdown(wire.caller().get(), SHUT_RDWR);
  shard.join();
}

// The same of a caller whose own OpenSSL would believe any certificate.
TEST_F(TcpTlsTest, NeitherIsOneThatIsBelieved) {
  TcpKeys none(/*encrypted=*/true);
  const auto impostor = *TlsContext::ForShard(none);
  HaveCertificate(impostor->get());
  SSL_CTX_set_verify(caller_->get(), SSL_VERIFY_NONE, nullptr);
  const Wire wire;
  std::thread shard([&] {
    EXPECT_TRUE(IsLaneDown(TlsSession::Accept(*impostor, wire.shard(), Soon()).status()));
  });
  EXPECT_TRUE(IsLaneDown(TlsSession::Connect(*caller_, wire.caller(), key_, Soon()).status()));
  shard.join();
}

TEST_F(TcpTlsTest, AByteThatIsChangedOnItsWayIsNoticed) {
  std::atomic<uint64_t> from = ~0ull;  // where the caller's own bytes begin
  const Wire wire([&](std::span<uint8_t> bytes, uint64_t at) {
    const uint64_t victim = from + 1000;
    if (victim >= at && victim < at + bytes.size()) bytes[victim - at] ^= 1;
  });
  Sessions sessions = Meet(wire, key_);
  ASSERT_TRUE(sessions.caller.ok() && sessions.shard.ok());
  from = wire.seen().size();
  const auto got = Carry(wire, sessions, testing::PatternBlock(3, 0, 100'000));
  EXPECT_TRUE(IsLaneDown(got.status())) << got.status();
}

TEST_F(TcpTlsTest, ADirectionGoesOnUnderItsNextKey) {
  const Wire wire;
  Sessions sessions = Meet(wire, key_);
  ASSERT_TRUE(sessions.caller.ok() && sessions.shard.ok());
  (*sessions.caller)->RekeyEvery(300'000);
  const size_t handshake = wire.seen().size();
  const std::vector<uint8_t> block = testing::PatternBlock(5, 0, 2'000'000);
  const auto got = Carry(wire, sessions, block);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(*got, block);
  EXPECT_FALSE((*sessions.shard)->Pending());
  // One small record for each of six changes of key, beside those of the block.
  const size_t records = (block.size() + 16'383) / 16'384;
  const size_t overhead = 5 + 16 + 1;
  EXPECT_GE(wire.seen().size() - handshake, block.size() + (records + 6) * overhead);
}

TEST_F(TcpTlsTest, AWaitEndsAtItsDeadline) {
  const Wire wire;
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      TlsSession::Accept(*shard_, wire.shard(), MonotonicDeadline::After(absl::Milliseconds(20)))
          .status()));
  Wire other;
  Sessions sessions = Meet(other, key_);
  ASSERT_TRUE(sessions.shard.ok());
  std::array<uint8_t, 1> byte;
  const auto receive = [&](const SocketWait& wait) {
    return (*sessions.shard)->Receive(other.shard(), byte, wait);
  };
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(receive({MonotonicDeadline::After(absl::Milliseconds(20))})));
  // And before it, where nothing moves for as long as one is to wait for that.
  EXPECT_TRUE(IsLaneDown(receive({Soon(), absl::Milliseconds(20)})));
}

TEST_F(TcpTlsTest, APeerThatSpeaksSomethingElseIsALaneThatIsDown) {
  const Wire wire;
  const std::string words = "GET / HTTP/1.1\r\nHost: shard\r\n\r\n";
  ASSERT_EQ(::send(wire.caller().get(), words.data(), words.size(), 0),
            static_cast<ssize_t>(words.size()));
  const auto session = TlsSession::Accept(*shard_, wire.shard(), Soon());
  EXPECT_TRUE(IsLaneDown(session.status())) << session.status();
}

}  // namespace
}  // namespace reprise::lanes::tcp
