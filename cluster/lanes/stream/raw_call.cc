#include "cluster/lanes/stream/raw_call.h"

#include "proto/wire/deadline.h"
#include "proto/wire/status.h"

namespace reprise::lanes {

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                 absl::Time deadline) {
  context_.set_deadline(wire::ToGprDeadline(deadline));
  grpc::GenericStub stub(channel);
  call_ = stub.PrepareCall(&context_, method, &queue_);
  Begin(kStart);
  call_->StartCall(Tag(kStart));
}

RawCall::~RawCall() {
  if (!finished_) {
    Cancel();
    Finish().IgnoreError();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool RawCall::Write(const grpc::ByteBuffer& message) {
  if (!Wait(kStart)) return false;
  Begin(kWrite);
  call_->Write(message, Tag(kWrite));
  return Wait(kWrite);
}

bool RawCall::WriteLast(const grpc::ByteBuffer& message) {
  if (!Wait(kStart)) return false;
  Begin(kWrite);
  call_->WriteLast(message, grpc::WriteOptions(), Tag(kWrite));
  return Wait(kWrite);
}

bool RawCall::WritesDone() {
  if (!Wait(kStart)) return false;
  Begin(kWrite);
  call_->WritesDone(Tag(kWrite));
  return Wait(kWrite);
}

void RawCall::StartRead(grpc::ByteBuffer* message) {
  succeeded_[kRead] = false;
  if (!Wait(kStart)) return;
  Begin(kRead);
  call_->Read(message, Tag(kRead));
}

bool RawCall::FinishRead() {
  return Wait(kRead);
}

absl::Status RawCall::Finish() {
  if (!finished_) {
    Wait(kStart);
    Wait(kWrite);
    Wait(kRead);
    Begin(kFinish);
    call_->Finish(&status_, Tag(kFinish));
    Wait(kFinish);
    finished_ = true;
  }
  return wire::FromGrpcStatus(status_);
}

bool RawCall::Wait(Op op) {
  while (under_way_[op]) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok)) return false;
    const size_t done = reinterpret_cast<uintptr_t>(tag) - 1;
    under_way_[done] = false;
    succeeded_[done] = ok;
  }
  return succeeded_[op];
}

}  // namespace reprise::lanes
