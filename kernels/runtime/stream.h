// A CUDA stream and a CUDA event, owned.
//
// Invariants: an object that exists holds a live handle; what a destructor cannot report it clears.
// Thread safety: handles may be used from any thread; one object's methods are not to be called at
// the same time.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/runtime/gpu_types.h"

namespace reprise::kernels {

class Event {
 public:
  // On the calling thread's device. UNAVAILABLE without one.
  static absl::StatusOr<Event> Create();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;
  ~Event();

  GpuEvent handle() const { return event_; }
  absl::Status Record(GpuStream stream);
  absl::StatusOr<bool> Done() const;
  absl::Status Synchronize() const;
  // Milliseconds from `start` to this one; both done.
  absl::StatusOr<float> MillisecondsSince(const Event& start) const;

 private:
  explicit Event(GpuEvent event) : event_(event) {}
  GpuEvent event_ = nullptr;
};

// Does not wait for the legacy default stream.
class Stream {
 public:
  // UNAVAILABLE when there is no such device.
  static absl::StatusOr<Stream> Create(int device);
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  GpuStream handle() const { return stream_; }
  absl::Status Synchronize() const;
  absl::StatusOr<bool> Idle() const;
  // Work given to this stream from now on waits for `event`.
  absl::Status WaitFor(const Event& event);

 private:
  explicit Stream(GpuStream stream) : stream_(stream) {}
  GpuStream stream_ = nullptr;
};

}  // namespace reprise::kernels
