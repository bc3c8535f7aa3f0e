// A DNS server on the loopback for tests of those who ask for SRV records: over UDP with answers of
// at most 512 bytes, over TCP at the same port with whole ones. It answers from a table, or as
// badly as a test wants it to.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace reprise::testing {

struct SrvRecord {
  std::string target;  // without the last dot; "" is the root
  uint16_t port = 0;
  uint16_t weight = 0;
};

class DnsServer {
 public:
  enum class Manner : uint8_t {
    kAnswers,        // from the table; NXDOMAIN for a name that is not in it
    kSilent,         // over UDP
    kLosesOne,       // over UDP, and then kAnswers
    kSilentOverTcp,  // and over UDP every answer is cut off
    kFails,          // SERVFAIL
    kNoise,          // a message of random bytes
    kRandomRecords,  // random bytes after the right header and question
    kCutsOff,        // half the records, and says so, even over TCP
  };

  // `seed`: of the random bytes.
  explicit DnsServer(uint32_t seed = 0);
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  std::string address() const;  // ADDRESS:PORT

  // The records of `name`, whole and without the last dot, in this order. Without records it is a
  // name that has others.
  void Set(const std::string& name, std::vector<SrvRecord> records);
  void Remove(const std::string& name);

  struct Asked {
    uint64_t udp = 0;  // repetitions included
    uint64_t tcp = 0;
  };
  Asked asked() const;
  // What had been asked before it: all later questions meet the new manner.
  Asked Behave(Manner manner);
  // True once so many questions have come in all, over UDP or over TCP; false when they did not in
  // the time that only a hang takes.
  bool WaitForQuestions(uint64_t udp) const;
  bool WaitForTcpQuestions(uint64_t tcp) const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace reprise::testing
