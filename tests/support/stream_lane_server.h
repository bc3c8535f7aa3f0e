// Read and Write of ShardService over a lane host, and nothing else, on a port of its own.
//
// Thread safety: one thread.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cluster/lanes/lane.h"
#include "cluster/lanes/stream/stream_host.h"
#include "proto/types/status_macros.h"
#include "proto/wire/credentials.h"
#include "reprise/v1/shard.grpc.pb.h"

namespace reprise::testing {

class StreamLaneServer {
 public:
  // `credentials` nullptr: plaintext. REQUIRES: `host` outlives this.
  explicit StreamLaneServer(lanes::LaneHost& host,
                            const std::shared_ptr<const wire::Credentials>& credentials = nullptr)
      : service_(host, *this) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(
        "127.0.0.1:0",
        credentials != nullptr ? credentials->server() : grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    REPRISE_CHECK(server_ != nullptr);
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~StreamLaneServer() {
    server_->Shutdown();
    server_->Wait();
    absl::MutexLock lock(&mu_);
    for (std::thread& thread : waiting_) thread.join();
  }

  const std::string& address() const { return address_; }
  // Whether reads of what is in a file are admitted; at first they are.
  void AdmitFiles(bool admit) { admits_files_ = admit; }

 private:
  using RawService = v1::ShardService::WithRawCallbackMethod_Read<
      v1::ShardService::WithRawCallbackMethod_Write<v1::ShardService::Service>>;

  class Service final : public RawService {
   public:
    Service(lanes::LaneHost& host, StreamLaneServer& server) : host_(host), server_(server) {}

    grpc::ServerWriteReactor<grpc::ByteBuffer>* Read(grpc::CallbackServerContext*,
                                                     const grpc::ByteBuffer* message) override {
      std::vector<grpc::Slice> slices;
      REPRISE_CHECK(message->Dump(&slices).ok());
      std::string bytes;
      for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
      v1::ReadRequest request;
      REPRISE_CHECK(request.ParseFromString(bytes));
      return lanes::ServeRead(
          host_, request,
          {.admit_file = [this] { return server_.AdmitFile(); },
           .wait_elsewhere =
               [this](std::function<void()> job) { server_.WaitElsewhere(std::move(job)); }});
    }
    grpc::ServerReadReactor<grpc::ByteBuffer>* Write(grpc::CallbackServerContext*,
                                                     grpc::ByteBuffer* response) override {
      return lanes::ServeWrite(host_, response,
                               {.admit = [](AttachmentId) { return absl::OkStatus(); }});
    }

   private:
    lanes::LaneHost& host_;
    StreamLaneServer& server_;
  };

  absl::StatusOr<std::shared_ptr<const void>> AdmitFile() const {
    if (!admits_files_) return absl::ResourceExhaustedError("no more reads of the disk");
    return std::shared_ptr<const void>();
  }

  // A thread for each job.
  void WaitElsewhere(std::function<void()> job) {
    absl::MutexLock lock(&mu_);
    waiting_.emplace_back(std::move(job));
  }

  std::atomic<bool> admits_files_ = true;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  absl::Mutex mu_;
  std::vector<std::thread> waiting_ ABSL_GUARDED_BY(mu_);
};

}  // namespace reprise::testing
