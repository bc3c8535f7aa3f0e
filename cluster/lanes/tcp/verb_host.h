// Who answers the verbs that come on a shard's tcp port.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/lanes/tcp/tcp_wire.h"
#include "proto/types/ids.h"

namespace reprise::lanes {

class VerbHost {
 public:
  virtual ~VerbHost() = default;
  // Request and answer are the protobuf messages of the verb's RPC. The attachment is the
  // connection's own, whatever the request says; `verb` may be none that is known. Not OK: what the
  // RPC would be refused with, or UNIMPLEMENTED: it is to be asked over gRPC. REQUIRES: an answer
  // has at most limits::kTcpVerbBytesMax bytes.
  virtual absl::StatusOr<std::string> Answer(AttachmentId attachment, tcp::Verb verb,
                                             absl::string_view request) = 0;
};

}  // namespace reprise::lanes
