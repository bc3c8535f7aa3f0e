// Ours, and the same calls the way generated code makes them.

#include <grpcpp/server_builder.h>

#include <cstring>

#include "absl/time/clock.h"
#include "cluster/lanes/stream/stream_host.h"
#include "cluster/lanes/stream/stream_lane.h"
#include "cluster/link/channel.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"
#include "proto/wire/serving.h"
#include "reprise/v1/shard.grpc.pb.h"
#include "tests/bench/stream/bench_end.h"

namespace reprise::bench {
namespace {

// The lease (or reservation) id carries the block size, so that one host serves every shape.
class BenchHost final : public lanes::LaneHost {
 public:
  explicit BenchHost(Slots slots) : slots_(slots) {}
  absl::StatusOr<std::vector<lanes::PinnedBytes>> OpenRead(AttachmentId, LeaseId lease, uint32_t,
                                                           uint32_t blocks) override {
    std::vector<lanes::PinnedBytes> opened(blocks);
    for (uint32_t i = 0; i < blocks; ++i) {
      opened[i] = {.bytes = slots_.stored.subspan(i * lease.value, lease.value), .pin = pin_};
    }
    return opened;
  }
  absl::StatusOr<lanes::PinnedSlot> OpenWrite(AttachmentId, ReservationId reservation,
                                              uint32_t block) override {
    return lanes::PinnedSlot{
        .bytes = slots_.reserved.subspan(block * reservation.value, reservation.value),
        .pin = pin_};
  }
  absl::Status Written(AttachmentId, ReservationId, uint32_t, uint64_t) override {
    return absl::OkStatus();
  }

 private:
  const Slots slots_;
  const std::shared_ptr<int> pin_ = std::make_shared<int>(0);
};

using RawService = v1::ShardService::WithRawCallbackMethod_Read<
    v1::ShardService::WithRawCallbackMethod_Write<v1::ShardService::Service>>;

class LaneService final : public RawService {
 public:
  explicit LaneService(Slots slots) : host_(slots) {}
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Read(grpc::CallbackServerContext*,
                                                   const grpc::ByteBuffer* message) override {
    grpc::Slice slice;
    v1::ReadRequest request;
    REPRISE_CHECK(message->DumpToSingleSlice(&slice).ok() &&
                  request.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
    return lanes::ServeRead(host_, request, nullptr);
  }
  grpc::ServerReadReactor<grpc::ByteBuffer>* Write(grpc::CallbackServerContext*,
                                                   grpc::ByteBuffer* response) override {
    return lanes::ServeWrite(host_, response,
                             {.admit = [](AttachmentId) { return absl::OkStatus(); }});
  }

 private:
  BenchHost host_;
};

class SpanSink final : public lanes::BlockSink {
 public:
  SpanSink(const Shape& shape, std::span<uint8_t> to) : shape_(shape), to_(to) {}
  std::span<uint8_t> Buffer(uint32_t i) override {
    return to_.subspan(i * shape_.block_bytes, shape_.block_bytes);
  }
  absl::Status Complete(uint32_t) override { return absl::OkStatus(); }
  absl::Status Deliver(uint32_t i, std::span<const uint8_t> bytes) override {
    std::memcpy(Buffer(i).data(), bytes.data(), bytes.size());
    return absl::OkStatus();
  }

 private:
  const Shape shape_;
  const std::span<uint8_t> to_;
};

class SpanSource final : public lanes::BlockSource {
 public:
  SpanSource(const Shape& shape, std::span<const uint8_t> from) : shape_(shape), from_(from) {}
  absl::StatusOr<std::span<const uint8_t>> Bytes(uint32_t i) override {
    return from_.subspan(i * shape_.block_bytes, shape_.block_bytes);
  }
  absl::Status Fill(uint32_t i, std::span<uint8_t> slot) override {
    std::memcpy(slot.data(), Bytes(i)->data(), slot.size());
    return absl::OkStatus();
  }

 private:
  const Shape shape_;
  const std::span<const uint8_t> from_;
};

absl::Time Deadline() {
  return absl::Now() + absl::Minutes(1);
}

class LaneCaller final : public Caller {
 public:
  explicit LaneCaller(const std::string& address)
      : lane_(cluster::MakeChannel(address), AttachmentId(1)) {}
  void Get(const Shape& shape, std::span<uint8_t> to) override {
    SpanSink sink(shape, to);
    const absl::Status status = lane_.Read(
        {LeaseId(shape.block_bytes), 0, shape.blocks, shape.block_bytes}, sink, Deadline());
    REPRISE_CHECK(status.ok());
  }
  void Put(const Shape& shape, std::span<const uint8_t> from) override {
    SpanSource source(shape, from);
    std::vector<uint32_t> blocks(shape.blocks);
    for (uint32_t i = 0; i < shape.blocks; ++i) blocks[i] = i;
    const absl::Status status = lane_.Write(
        {ReservationId(shape.block_bytes), blocks, shape.block_bytes}, source, Deadline());
    REPRISE_CHECK(status.ok());
  }

 private:
  lanes::StreamLane lane_;
};

// The way that the published proto alone suggests.
class ProtobufService final : public v1::ShardService::Service {
 public:
  explicit ProtobufService(Slots slots) : slots_(slots) {}
  grpc::Status Read(grpc::ServerContext*, const v1::ReadRequest* request,
                    grpc::ServerWriter<v1::ReadResponse>* writer) override {
    const uint64_t block_bytes = request->lease_id();
    for (uint32_t block = 0; block < request->blocks(); ++block) {
      for (uint64_t at = 0; at < block_bytes; at += limits::kStreamChunkBytes) {
        v1::ReadResponse response;
        response.set_block(block);
        response.set_offset_bytes(at);
        response.set_data(slots_.stored.data() + block * block_bytes + at,
                          std::min<uint64_t>(limits::kStreamChunkBytes, block_bytes - at));
        REPRISE_CHECK(writer->Write(response));
      }
    }
    return grpc::Status::OK;
  }
  grpc::Status Write(grpc::ServerContext*, grpc::ServerReader<v1::WriteRequest>* reader,
                     v1::WriteResponse*) override {
    v1::WriteRequest request;
    uint64_t block_bytes = 0;
    while (reader->Read(&request)) {
      if (request.reservation_id() != 0) block_bytes = request.reservation_id();
      std::memcpy(slots_.reserved.data() + request.block() * block_bytes + request.offset_bytes(),
                  request.data().data(), request.data().size());
    }
    return grpc::Status::OK;
  }

 private:
  const Slots slots_;
};

class ProtobufCaller final : public Caller {
 public:
  explicit ProtobufCaller(const std::string& address)
      : stub_(v1::ShardService::NewStub(cluster::MakeChannel(address))) {}
  void Get(const Shape& shape, std::span<uint8_t> to) override {
    v1::ReadRequest request;
    request.set_lease_id(shape.block_bytes);
    request.set_blocks(shape.blocks);
    grpc::ClientContext context;
    const auto stream = stub_->Read(&context, request);
    v1::ReadResponse response;
    while (stream->Read(&response)) {
      std::memcpy(to.data() + response.block() * shape.block_bytes + response.offset_bytes(),
                  response.data().data(), response.data().size());
    }
    REPRISE_CHECK(stream->Finish().ok());
  }
  void Put(const Shape& shape, std::span<const uint8_t> from) override {
    grpc::ClientContext context;
    v1::WriteResponse response;
    const auto stream = stub_->Write(&context, &response);
    for (uint32_t block = 0; block < shape.blocks; ++block) {
      for (uint64_t at = 0; at < shape.block_bytes; at += limits::kStreamChunkBytes) {
        v1::WriteRequest request;
        request.set_reservation_id(shape.block_bytes);
        request.set_block(block);
        request.set_offset_bytes(at);
        request.set_data(from.data() + block * shape.block_bytes + at,
                         std::min<uint64_t>(limits::kStreamChunkBytes, shape.block_bytes - at));
        REPRISE_CHECK(stream->Write(request));
      }
    }
    stream->WritesDone();
    REPRISE_CHECK(stream->Finish().ok());
  }

 private:
  const std::unique_ptr<v1::ShardService::Stub> stub_;
};

// Both listen as every server of ours does.
template <typename Service, typename ItsCaller>
class GrpcEnd final : public End {
 public:
  GrpcEnd(const char* name, Slots slots) : name_(name), service_(slots) {
    absl::StatusOr<wire::Listening> listening = wire::Listen("127.0.0.1:0", service_);
    REPRISE_CHECK(listening.ok());
    listening_ = *std::move(listening);
  }
  ~GrpcEnd() override {
    listening_.server->Shutdown();
    listening_.server->Wait();
  }
  const char* name() const override { return name_; }
  std::unique_ptr<Caller> Connect() override {
    return std::make_unique<ItsCaller>(listening_.address);
  }

 private:
  const char* const name_;
  Service service_;
  wire::Listening listening_;
};

}  // namespace

std::unique_ptr<End> StreamLaneEnd(Slots slots) {
  return std::make_unique<GrpcEnd<LaneService, LaneCaller>>("stream lane", slots);
}

std::unique_ptr<End> ProtobufBytesEnd(Slots slots) {
  return std::make_unique<GrpcEnd<ProtobufService, ProtobufCaller>>("protobuf bytes", slots);
}

}  // namespace reprise::bench
