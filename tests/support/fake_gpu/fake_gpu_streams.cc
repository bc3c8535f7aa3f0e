#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/fake_gpu/fake_gpu_state.h"

namespace reprise::testing {

using namespace kernels;

StreamState& FakeGpu::Find(GpuStream stream) {
  if (stream == nullptr) return *default_stream_;
  for (const auto& known : streams_) {
    if (reinterpret_cast<GpuStream>(known.get()) == stream && !known->destroyed) return *known;
  }
  Misused("a stream that was destroyed, or never made");
}

std::shared_ptr<EventState>& FakeGpu::Find(GpuEvent event) {
  const auto it = events_.find(event);
  if (it == events_.end()) Misused("an event that was destroyed, or never made");
  return it->second;
}

GpuCode FakeGpu::Enqueue(GpuStream stream, Work work) {
  StreamState& state = Find(stream);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  if (work.run != nullptr && ++given_ == options_.lost_after) {
    lost_ = true;
    return kFakeGpuIllegalAddress;
  }
  state.work.push_back(std::move(work));
  if (!options_.deferred) Drain(state);
  return kGpuOk;
}

bool FakeGpu::Runnable(const StreamState& stream) const {
  if (stream.work.empty()) return false;
  const Work& head = stream.work.front();
  return head.wait == nullptr || head.wait->done >= head.count;
}

void FakeGpu::RunHead(StreamState& stream) {
  const Work work = std::move(stream.work.front());
  stream.work.pop_front();
  kernel_device_ = stream.machine_device;
  if (work.run != nullptr && !lost_) work.run();
  if (work.record != nullptr) {
    work.record->done = work.count;
    work.record->at = std::chrono::steady_clock::now();
  }
}

// Runs one piece of work of any stream; false when no stream has any.
bool FakeGpu::Step() {
  std::vector<StreamState*> runnable;
  if (Runnable(*default_stream_)) runnable.push_back(default_stream_.get());
  for (const auto& stream : streams_) {
    if (Runnable(*stream)) runnable.push_back(stream.get());
  }
  if (runnable.empty()) return false;
  RunHead(*runnable[random_() % runnable.size()]);
  streams_.erase(std::remove_if(streams_.begin(), streams_.end(),
                                [](const auto& s) { return s->destroyed && s->work.empty(); }),
                 streams_.end());
  return true;
}

void FakeGpu::Drain(StreamState& stream) {
  while (!stream.work.empty()) {
    if (!Step()) Misused("streams wait for each other");
  }
}

void FakeGpu::DrainAll() {
  while (Step()) {
  }
}

// What a device gets done between two questions.
void FakeGpu::SomeSteps() {
  for (uint64_t steps = random_() % 3; steps > 0 && Step(); --steps) {
  }
}

GpuCode FakeGpu::CreateStream(GpuStream* stream) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  auto made = std::make_unique<StreamState>();
  made->machine_device = options_.first + CurrentDevice();
  *stream = reinterpret_cast<GpuStream>(made.get());
  streams_.push_back(std::move(made));
  return kGpuOk;
}

GpuCode FakeGpu::DestroyStream(GpuStream stream) {
  std::lock_guard lock(mu_);
  if (stream == nullptr) return kFakeGpuInvalidHandle;
  StreamState& state = Find(stream);
  state.destroyed = true;
  if (state.work.empty()) {
    streams_.erase(std::find_if(streams_.begin(), streams_.end(),
                                [&](const auto& known) { return known.get() == &state; }));
  }
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::QueryStream(GpuStream stream) {
  std::lock_guard lock(mu_);
  StreamState& state = Find(stream);
  if (lost_) return kFakeGpuIllegalAddress;
  SomeSteps();
  return state.work.empty() && state.groups_in_flight == 0 ? kGpuOk : kGpuNotReady;
}

GpuCode FakeGpu::SynchronizeStream(GpuStream stream) {
  while (true) {
    {
      std::lock_guard lock(mu_);
      StreamState& state = Find(stream);
      if (lost_) return kFakeGpuIllegalAddress;
      Drain(state);
      if (state.groups_in_flight == 0) return kGpuOk;
    }
    std::this_thread::yield();
  }
}

GpuCode FakeGpu::CreateEvent(GpuEvent* event) {
  std::lock_guard lock(mu_);
  if (lost_) return kFakeGpuIllegalAddress;
  if (options_.devices == 0) return kGpuNoDevice;
  *event = reinterpret_cast<GpuEvent>(static_cast<uintptr_t>(next_event_++));
  events_.emplace(*event, std::make_shared<EventState>());
  return kGpuOk;
}

GpuCode FakeGpu::DestroyEvent(GpuEvent event) {
  std::lock_guard lock(mu_);
  Find(event);
  events_.erase(event);
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::Record(GpuEvent event, GpuStream stream) {
  std::lock_guard lock(mu_);
  const std::shared_ptr<EventState>& state = Find(event);
  const uint64_t count = ++state->recorded;
  return Enqueue(stream, {.record = state, .count = count});
}

GpuCode FakeGpu::Wait(GpuStream stream, GpuEvent event) {
  std::lock_guard lock(mu_);
  const std::shared_ptr<EventState>& state = Find(event);
  return Enqueue(stream, {.wait = state, .count = state->recorded});
}

GpuCode FakeGpu::QueryEvent(GpuEvent event) {
  std::lock_guard lock(mu_);
  const std::shared_ptr<EventState> state = Find(event);
  if (lost_) return kFakeGpuIllegalAddress;
  SomeSteps();
  return state->done == state->recorded ? kGpuOk : kGpuNotReady;
}

GpuCode FakeGpu::SynchronizeEvent(GpuEvent event) {
  std::lock_guard lock(mu_);
  const std::shared_ptr<EventState> state = Find(event);
  while (!lost_ && state->done < state->recorded) {
    if (!Step()) Misused("streams wait for each other");
  }
  return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
}

GpuCode FakeGpu::Elapsed(GpuEvent start, GpuEvent end, float* milliseconds) {
  std::lock_guard lock(mu_);
  const std::shared_ptr<EventState> from = Find(start);
  const std::shared_ptr<EventState> to = Find(end);
  if (from->recorded == 0 || to->recorded == 0) return kFakeGpuInvalidHandle;
  if (from->done < from->recorded || to->done < to->recorded) return kGpuNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return kGpuOk;
}

GpuCode FakeGpu::Copy(void* to, const void* from, uint64_t bytes, GpuStream stream) {
  std::lock_guard lock(mu_);
  if (bytes == 0) return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
  Translate(to, bytes, "cudaMemcpyAsync to");
  Translate(from, bytes, "cudaMemcpyAsync from");
  ++counts_.copies;
  const bool from_pageable = Find(from) == nullptr;
  const bool to_pageable = Find(to) == nullptr;
  // The device reads pageable memory before the call returns.
  std::shared_ptr<std::vector<uint8_t>> staged;
  if (from_pageable) {
    const auto* bytes_at = static_cast<const uint8_t*>(from);
    staged = std::make_shared<std::vector<uint8_t>>(bytes_at, bytes_at + bytes);
  }
  const GpuCode code = Enqueue(
      stream, {.run = [this, to, from, bytes, staged] {
        const uint8_t* source =
            staged != nullptr ? staged->data() : Translate(from, bytes, "cudaMemcpyAsync from");
        std::memmove(Translate(to, bytes, "cudaMemcpyAsync to"), source, bytes);
      }});
  if (code == kGpuOk && to_pageable) Drain(Find(stream));
  return code;
}

GpuCode FakeGpu::Fill(void* to, uint8_t value, uint64_t bytes, GpuStream stream) {
  std::lock_guard lock(mu_);
  if (bytes == 0) return lost_ ? kFakeGpuIllegalAddress : kGpuOk;
  if (Find(to) == nullptr) return kGpuInvalidValue;
  Translate(to, bytes, "cudaMemsetAsync");
  ++counts_.copies;
  return Enqueue(stream, {.run = [this, to, value, bytes] {
                   std::memset(Translate(to, bytes, "cudaMemsetAsync"), value, bytes);
                 }});
}

GpuCode FakeGpu::Launch(GpuStream stream, std::function<void()> kernel) {
  std::lock_guard lock(mu_);
  ++counts_.launches;
  return Enqueue(stream, {.run = std::move(kernel)});
}

}  // namespace reprise::testing
