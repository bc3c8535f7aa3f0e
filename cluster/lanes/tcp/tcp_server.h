// The shard's end of the tcp lane: a port of its own, beside gRPC's, on which attached callers read
// and write blocks, and ask the verbs that go with them, without gRPC in between.
//
// Invariants:
//   - only an attachment that was welcomed is served: encrypted, whoever has its key; in plaintext,
//     whoever knows its id, which is as much as gRPC asks for there;
//   - an attachment's connections end with it, in the middle of whatever they do;
//   - connections are bounded, each has a thread, and one more closes one that has not said who it
//     is for longest, else one that is between calls for longest; with neither it is not taken.
//     An attachment has at most limits::kTcpConnectionsPerAttachmentMax. One that says nothing or
//     nonsense is closed.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/tcp/call_server.h"
#include "cluster/lanes/tcp/tcp_keys.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "cluster/lanes/tcp/tcp_tls.h"
#include "cluster/lanes/tcp/verb_host.h"

namespace reprise::lanes {

class TcpServer {
 public:
  struct Options {
    LaneHost* host = nullptr;  // REQUIRES: outlives the server
    std::string listen_host = "127.0.0.1";
    uint16_t port = 0;  // 0: a free one
    bool encrypted = false;
    TcpGuards guards;
    size_t connections_max = limits::kTcpConnectionsMax;
  };

  // UNAVAILABLE when the port cannot be had (TCP_LISTEN), or TLS is not (LANE_DOWN).
  static absl::StatusOr<std::unique_ptr<TcpServer>> Create(Options options);
  // Ends all connections and waits for their threads.
  ~TcpServer();

  uint16_t port() const { return listeners_.port; }

  // Serves an attachment from now on: with this key, or in plaintext.
  absl::StatusOr<std::optional<TcpKey>> Welcome(AttachmentId attachment);
  void EndAttachment(AttachmentId attachment);

  // Whom verbs are given to; nullptr, as in the beginning: they are refused. Returns when the one
  // before answers none any more.
  void AnswerVerbs(VerbHost* host);

  struct Use {
    size_t connections = 0;
    size_t idle = 0;     // of them: between calls
    uint64_t verbs = 0;  // answered since the start, refusals included
  };
  Use use() const;

 private:
  class Connection;
  // The verbs' host at any time.
  class VerbSwitch final : public VerbHost {
   public:
    void To(VerbHost* host);
    absl::StatusOr<std::string> Answer(AttachmentId attachment, tcp::Verb verb,
                                       absl::string_view request) override;
    uint64_t answered() const { return answered_.load(std::memory_order_relaxed); }

   private:
    absl::Mutex mu_;  // held shared while one is answered
    VerbHost* host_ ABSL_GUARDED_BY(mu_) = nullptr;
    std::atomic<uint64_t> answered_{0};
  };

  TcpServer(Options options, tcp::Listeners listeners);
  void AcceptLoop();
  void Admit(Descriptor socket);
  // Ends one connection in favour of another; false when each is in the middle of a call.
  bool MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t ConnectionsOf(AttachmentId attachment) const;

  const Options options_;
  TcpKeys keys_;
  VerbSwitch verbs_;
  std::unique_ptr<const tcp::TlsContext> tls_;  // nullptr: plaintext
  const tcp::Listeners listeners_;
  const Descriptor wake_;  // an eventfd that ends the acceptor's wait
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::list<std::unique_ptr<Connection>> connections_ ABSL_GUARDED_BY(mu_);
  std::thread acceptor_;  // begun by Create
};

}  // namespace reprise::lanes
