// The shard's end of the view lane: tells callers on the same machine where leased blocks and
// reserved slots lie, and hands out the memory they lie in, read-only for readers.
//
// Invariants:
//   - only processes of our own user are answered, and only with the attachment id of a living
//     attachment;
//   - an extent goes only to a connection that has a block or slot of it open: no memory of another
//     key space. One in device memory is shared with its attachment until no process can have it
//     mapped (device_shares.h);
//   - what a caller has open stays pinned until it says so, its connection ends, or
//     limits::kViewOpeningAgeMax is over;
//   - connections are bounded; one that says nothing, nonsense or too much is closed.
// Trust: a mapping outlives its opening, and callers of our own user could write where they may
// only read; device memory is mapped writable in any case. What a caller scribbles is found by the
// block checksum, where the bytes are used.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/view/device_shares.h"
#include "cluster/lanes/view/extent_exporter.h"
#include "cluster/lanes/view/view_socket.h"

namespace reprise::lanes {

class ViewServer {
 public:
  struct Options {
    LaneHost* host = nullptr;  // REQUIRES: both outlive the server
    ExtentExporter* exporter = nullptr;
  };

  // Listens on an abstract Unix socket of a random name. UNAVAILABLE where there are no Unix
  // sockets.
  static absl::StatusOr<std::unique_ptr<ViewServer>> Create(Options options);
  // Ends all connections and waits for their threads.
  ~ViewServer();

  // What a caller connects to: "@" and a name in the abstract namespace.
  const std::string& address() const { return address_; }

  // Ends the connections of an attachment. A caller that reads or writes at this moment keeps its
  // pins until it is gone, so that its slots are not reused under it.
  void EndAttachment(AttachmentId attachment);

  size_t connections() const;

 private:
  class Connection;

  ViewServer(Options options, Descriptor listener, std::string address);
  void Accept();
  void Wait() const;
  void Sweep();
  void Admit(Descriptor socket);

  const Options options_;
  view::DeviceShares shares_;
  Descriptor listener_;
  const std::string address_;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::list<std::unique_ptr<Connection>> connections_ ABSL_GUARDED_BY(mu_);
  std::thread acceptor_;
};

}  // namespace reprise::lanes
