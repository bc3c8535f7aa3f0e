// The shard's gRPC surface: one handler class per RPC over one ShardCore. Unary verbs are admitted,
// then run on gRPC's thread, or on a worker when they take long; streams are reactors.
//
// Invariants: nothing that was not admitted touches the engine; a call whose client is gone is not
// begun.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "service/shard/handlers/acquire_handler.h"
#include "service/shard/handlers/attach_handler.h"
#include "service/shard/handlers/commit_handler.h"
#include "service/shard/handlers/describe_handler.h"
#include "service/shard/handlers/explain_handler.h"
#include "service/shard/handlers/hint_handler.h"
#include "service/shard/handlers/lookup_handler.h"
#include "service/shard/handlers/open_spec_handler.h"
#include "service/shard/handlers/pull_handler.h"
#include "service/shard/handlers/read_handler.h"
#include "service/shard/handlers/release_handler.h"
#include "service/shard/handlers/remove_handler.h"
#include "service/shard/handlers/reserve_handler.h"
#include "service/shard/handlers/shard_core.h"
#include "service/shard/handlers/watch_blocks_handler.h"
#include "service/shard/handlers/write_handler.h"
#include "service/shard/work_queue.h"

namespace reprise::shard {

// Read and Write carry their messages raw: see cluster/lanes/stream.
using RawBytesService = v1::ShardService::WithRawCallbackMethod_Read<
    v1::ShardService::WithRawCallbackMethod_Write<v1::ShardService::CallbackService>>;

class ShardService final : public RawBytesService {
 public:
  // REQUIRES: `core` outlives the server that this is registered with.
  explicit ShardService(ShardCore& core);

  // From now on nothing new is reserved, and every client and watcher is told.
  void StartDraining();
  // False when a client that is to be told has not been by `deadline`.
  bool AwaitNotices(absl::Time deadline);
  // Ends the streams that never end by themselves, and those that open later: those of clients that
  // were told with OK, the others with `why`.
  void EndStreams(const absl::Status& why);
  // Ends what is overdue. Called every kTickInterval.
  void Tick();
  // Called every kHeartbeatInterval.
  void Beat() { watch_blocks_.Beat(); }

  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* OpenSpec(grpc::CallbackServerContext* context,
                                     const v1::OpenSpecRequest* request,
                                     v1::OpenSpecResponse* response) override;
  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* context,
                                   const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override;
  grpc::ServerUnaryReactor* Acquire(grpc::CallbackServerContext* context,
                                    const v1::AcquireRequest* request,
                                    v1::AcquireResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context,
                                    const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerUnaryReactor* Reserve(grpc::CallbackServerContext* context,
                                    const v1::ReserveRequest* request,
                                    v1::ReserveResponse* response) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* Write(grpc::CallbackServerContext* context,
                                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Commit(grpc::CallbackServerContext* context,
                                   const v1::CommitRequest* request,
                                   v1::CommitResponse* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Read(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Pull(grpc::CallbackServerContext* context,
                                 const v1::PullRequest* request,
                                 v1::PullResponse* response) override;
  grpc::ServerUnaryReactor* Hint(grpc::CallbackServerContext* context,
                                 const v1::HintRequest* request,
                                 v1::HintResponse* response) override;
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const v1::RemoveRequest* request,
                                   v1::RemoveResponse* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchBlocksResponse>* WatchBlocks(
      grpc::CallbackServerContext* context, const v1::WatchBlocksRequest* request) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::ShardServiceDescribeRequest* request,
                                     v1::ShardServiceDescribeResponse* response) override;

 private:
  enum class Weight { kLight, kHeavy };
  template <typename Handler, typename Request, typename Response>
  grpc::ServerUnaryReactor* Serve(WorkKind kind, Weight weight, Handler& handler,
                                  grpc::CallbackServerContext* context, const Request* request,
                                  Response* response);

  ShardCore& core_;
  // Apart from the workers: a disk that hangs holds up what lies on it, and nothing else.
  WorkQueue disk_readers_;
  AttachHandler attach_;
  OpenSpecHandler open_spec_;
  LookupHandler lookup_;
  AcquireHandler acquire_;
  ReleaseHandler release_;
  ReserveHandler reserve_;
  WriteHandler write_;
  CommitHandler commit_;
  ReadHandler read_;
  PullHandler pull_;
  HintHandler hint_;
  RemoveHandler remove_;
  ExplainHandler explain_;
  WatchBlocksHandler watch_blocks_;
  DescribeHandler describe_;
  WorkQueue workers_;  // last: its jobs use the handlers
};

}  // namespace reprise::shard
