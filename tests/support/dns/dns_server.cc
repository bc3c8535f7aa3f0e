#include "tests/support/dns/dns_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "proto/types/status_macros.h"

namespace reprise::testing {
namespace {

// RFC 1035, 4.1: a message is a header, the question, the records.
constexpr size_t kHeaderBytes = 12;
constexpr size_t kUdpBytesMax = 512;
constexpr size_t kBytesMax = 65'535;
constexpr uint8_t kIsAnswer = 0x80;    // of the third byte
constexpr uint8_t kTruncated = 0x02;   // of the third byte
constexpr uint8_t kServerFailure = 2;  // of the fourth byte
constexpr uint8_t kNoSuchName = 3;     // of the fourth byte
constexpr uint16_t kNameOfQuestion = 0xC000 | kHeaderBytes;
constexpr uint16_t kTypeSrv = 33;
constexpr uint16_t kClassInternet = 1;
constexpr absl::Duration kOnlyAHangReachesIt = absl::Seconds(20);

using Manner = DnsServer::Manner;

void Put16(std::string& out, size_t value) {
  out.push_back(static_cast<char>(value >> 8));
  out.push_back(static_cast<char>(value));
}

void PutName(std::string& out, const std::string& name) {
  if (!name.empty()) {
    for (const absl::string_view label : absl::StrSplit(name, '.')) {
      out.push_back(static_cast<char>(label.size()));
      out.append(label.data(), label.size());
    }
  }
  out.push_back('\0');
}

std::string RecordBytes(const SrvRecord& record) {
  std::string data;
  Put16(data, 0);  // priority
  Put16(data, record.weight);
  Put16(data, record.port);
  PutName(data, record.target);
  std::string bytes;
  Put16(bytes, kNameOfQuestion);
  Put16(bytes, kTypeSrv);
  Put16(bytes, kClassInternet);
  bytes.append(4, '\0');  // time to live
  Put16(bytes, data.size());
  return bytes + data;
}

// A query's name; what follows it are type and class.
std::string NameIn(const std::string& query, size_t& end) {
  std::string name;
  end = kHeaderBytes;
  while (end < query.size() && query[end] != '\0') {
    const auto size = static_cast<uint8_t>(query[end]);
    absl::StrAppend(&name, name.empty() ? "" : ".", query.substr(end + 1, size));
    end += 1 + size;
  }
  ++end;
  return name;
}

sockaddr* Generic(sockaddr_in& address) {
  return reinterpret_cast<sockaddr*>(&address);
}

bool ReadAll(int socket, char* bytes, size_t size) {
  return ::recv(socket, bytes, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

}  // namespace

class DnsServer::Impl {
 public:
  explicit Impl(uint32_t seed) : random_(seed), stop_(::eventfd(0, EFD_CLOEXEC)) {
    REPRISE_CHECK(stop_ >= 0);
    while (!BindBoth()) {
    }
    thread_ = std::thread([this] { Serve(); });
  }
  ~Impl() {
    ::eventfd_write(stop_, 1);
    thread_.join();
    for (const int socket : {stop_, udp_, tcp_}) ::close(socket);
    for (const int socket : held_) ::close(socket);
  }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  void Set(const std::string& name, std::vector<SrvRecord> records) {
    absl::MutexLock lock(&mu_);
    table_[name] = std::move(records);
  }
  void Remove(const std::string& name) {
    absl::MutexLock lock(&mu_);
    table_.erase(name);
  }
  Asked Behave(Manner manner) {
    absl::MutexLock lock(&mu_);
    manner_ = manner;
    return asked_;
  }
  Asked asked() const {
    absl::MutexLock lock(&mu_);
    return asked_;
  }
  bool WaitFor(uint64_t Asked::*kind, uint64_t enough) const {
    absl::MutexLock lock(&mu_);
    const auto come = [&] {
      mu_.AssertReaderHeld();
      return asked_.*kind >= enough;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&come), kOnlyAHangReachesIt);
  }

 private:
  // A free port of UDP and the same of TCP, which may be taken.
  bool BindBoth() {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    udp_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    tcp_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REPRISE_CHECK(udp_ >= 0 && tcp_ >= 0);
    REPRISE_CHECK(::bind(udp_, Generic(address), size) == 0);
    REPRISE_CHECK(::getsockname(udp_, Generic(address), &size) == 0);
    port_ = ntohs(address.sin_port);
    if (::bind(tcp_, Generic(address), size) == 0 && ::listen(tcp_, 16) == 0) return true;
    ::close(udp_);
    ::close(tcp_);
    return false;
  }

  void Serve() {
    while (true) {
      pollfd ready[] = {{.fd = stop_, .events = POLLIN, .revents = 0},
                        {.fd = udp_, .events = POLLIN, .revents = 0},
                        {.fd = tcp_, .events = POLLIN, .revents = 0}};
      if (::poll(ready, 3, -1) < 0) continue;
      if (ready[0].revents != 0) return;
      if (ready[1].revents != 0) ServeUdp();
      if (ready[2].revents != 0) ServeTcp();
    }
  }

  void ServeUdp() {
    std::string query(kUdpBytesMax, '\0');
    sockaddr_in asker = {};
    socklen_t asker_size = sizeof(asker);
    const ssize_t size =
        ::recvfrom(udp_, query.data(), query.size(), 0, Generic(asker), &asker_size);
    if (size < static_cast<ssize_t>(kHeaderBytes)) return;
    query.resize(static_cast<size_t>(size));
    absl::MutexLock lock(&mu_);
    ++asked_.udp;
    if (manner_ == Manner::kSilent) return;
    if (manner_ == Manner::kLosesOne) {
      manner_ = Manner::kAnswers;
      return;
    }
    const std::string answer = Answer(query, kUdpBytesMax);
    ::sendto(udp_, answer.data(), answer.size(), 0, Generic(asker), asker_size);
  }

  // One question per connection. It is closed before long, whatever the asker does.
  void ServeTcp() {
    const int socket = ::accept4(tcp_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) return;
    const timeval patience = {.tv_sec = 5, .tv_usec = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    uint8_t prefix[2];
    std::string query;
    if (ReadAll(socket, reinterpret_cast<char*>(prefix), sizeof(prefix))) {
      query.resize(static_cast<size_t>(prefix[0]) << 8 | prefix[1]);
      if (!ReadAll(socket, query.data(), query.size())) query.clear();
    }
    if (query.size() >= kHeaderBytes) {
      absl::MutexLock lock(&mu_);
      ++asked_.tcp;
      if (manner_ == Manner::kSilentOverTcp) {
        held_.push_back(socket);
        return;
      }
      const std::string answer = Answer(query, kBytesMax);
      std::string framed;
      Put16(framed, answer.size());
      framed += answer;
      ::send(socket, framed.data(), framed.size(), MSG_NOSIGNAL);
    }
    ::close(socket);
  }

  std::string RandomBytes(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    std::string bytes(size, '\0');
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random_()); });
    return bytes;
  }

  std::string Answer(const std::string& query, size_t bytes_max)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (manner_ == Manner::kNoise) return RandomBytes(random_() % bytes_max);
    size_t end = 0;
    const std::string name = NameIn(query, end);
    std::string answer = query.substr(0, std::min(end + 4, query.size()));
    const auto put = [&](size_t at, size_t value) {
      answer[at] = static_cast<char>(value >> 8);
      answer[at + 1] = static_cast<char>(value);
    };
    answer[2] |= static_cast<char>(kIsAnswer);
    put(4, 1);   // questions
    put(6, 0);   // records
    put(8, 0);   // of authorities
    put(10, 0);  // and others
    if (manner_ == Manner::kFails) {
      answer[3] = kServerFailure;
      return answer;
    }
    if (manner_ == Manner::kRandomRecords) {
      put(6, 1 + random_() % 4);
      return answer + RandomBytes(random_() % (bytes_max - answer.size()));
    }
    const auto found = table_.find(name);
    if (found == table_.end()) {
      answer[3] = kNoSuchName;
      return answer;
    }
    size_t records_max = found->second.size();
    bool cut = manner_ == Manner::kSilentOverTcp || manner_ == Manner::kCutsOff;
    if (cut) records_max /= 2;
    size_t records = 0;
    for (; records < records_max; ++records) {
      const std::string bytes = RecordBytes(found->second[records]);
      if (answer.size() + bytes.size() > bytes_max) {
        cut = true;
        break;
      }
      answer += bytes;
    }
    put(6, records);
    if (cut) answer[2] |= kTruncated;
    return answer;
  }

  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::vector<SrvRecord>> table_ ABSL_GUARDED_BY(mu_);
  Manner manner_ ABSL_GUARDED_BY(mu_) = Manner::kAnswers;
  Asked asked_ ABSL_GUARDED_BY(mu_);
  std::mt19937 random_ ABSL_GUARDED_BY(mu_);
  std::vector<int> held_;  // the thread's, then the end's
  const int stop_;
  int udp_ = -1;
  int tcp_ = -1;
  uint16_t port_ = 0;
  std::thread thread_;
};

DnsServer::DnsServer(uint32_t seed) : impl_(std::make_unique<Impl>(seed)) {}
DnsServer::~DnsServer() = default;
std::string DnsServer::address() const {
  return impl_->address();
}
void DnsServer::Set(const std::string& name, std::vector<SrvRecord> records) {
  impl_->Set(name, std::move(records));
}
void DnsServer::Remove(const std::string& name) {
  impl_->Remove(name);
}
DnsServer::Asked DnsServer::Behave(Manner manner) {
  return impl_->Behave(manner);
}
DnsServer::Asked DnsServer::asked() const {
  return impl_->asked();
}
bool DnsServer::WaitForQuestions(uint64_t udp) const {
  return impl_->WaitFor(&Asked::udp, udp);
}
bool DnsServer::WaitForTcpQuestions(uint64_t tcp) const {
  return impl_->WaitFor(&Asked::tcp, tcp);
}

}  // namespace reprise::testing
