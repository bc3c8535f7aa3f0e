#include "kernels/runtime/stream.h"

#include <utility>

#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/gpu_status.h"
#include "proto/types/status_macros.h"

namespace reprise::kernels {
namespace {

absl::StatusOr<bool> DoneOf(GpuCode code, absl::string_view doing) {
  if (code == kGpuNotReady) {
    GpuTakeLastError();
    return false;
  }
  REPRISE_RETURN_IF_ERROR(GpuStatus(code, doing));
  return true;
}

}  // namespace

absl::StatusOr<Event> Event::Create() {
  GpuEvent event = nullptr;
  REPRISE_RETURN_IF_ERROR(GpuStatus(GpuEventCreate(&event), "creating an event"));
  return Event(event);
}

Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(event_, other.event_);
  return *this;
}

Event::~Event() {
  if (event_ != nullptr && GpuEventDestroy(event_) != kGpuOk) GpuTakeLastError();
}

absl::Status Event::Record(GpuStream stream) {
  return GpuStatus(GpuEventRecord(event_, stream), "recording an event");
}

absl::StatusOr<bool> Event::Done() const {
  return DoneOf(GpuEventQuery(event_), "asking an event");
}

absl::Status Event::Synchronize() const {
  return GpuStatus(GpuEventSynchronize(event_), "waiting for an event");
}

absl::StatusOr<float> Event::MillisecondsSince(const Event& start) const {
  float milliseconds = 0;
  REPRISE_RETURN_IF_ERROR(
      GpuStatus(GpuEventElapsed(start.event_, event_, &milliseconds), "timing two events"));
  return milliseconds;
}

absl::StatusOr<Stream> Stream::Create(int device) {
  REPRISE_RETURN_IF_ERROR(UseDevice(device));
  GpuStream stream = nullptr;
  REPRISE_RETURN_IF_ERROR(GpuStatus(GpuStreamCreate(&stream), "creating a stream"));
  return Stream(stream);
}

Stream::Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(stream_, other.stream_);
  return *this;
}

Stream::~Stream() {
  if (stream_ != nullptr && GpuStreamDestroy(stream_) != kGpuOk) GpuTakeLastError();
}

absl::Status Stream::Synchronize() const {
  return GpuStatus(GpuStreamSynchronize(stream_), "waiting for a stream");
}

absl::StatusOr<bool> Stream::Idle() const {
  return DoneOf(GpuStreamQuery(stream_), "asking a stream");
}

absl::Status Stream::WaitFor(const Event& event) {
  return GpuStatus(GpuStreamWait(stream_, event.handle()), "making a stream wait");
}

}  // namespace reprise::kernels
