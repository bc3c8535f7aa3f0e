#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "tests/support/fake_gpu/fake_gpu_state.h"

namespace reprise::testing {
namespace {

uint64_t Number(const std::string& key, const std::string& text) {
  static const std::map<std::string, uint64_t> kUnits = {
      {"", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}};
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [unit, error] = std::from_chars(text.data(), end, number);
  const auto found = kUnits.find(std::string(unit, end));
  if (error != std::errc() || found == kUnits.end()) {
    Misused("REPRISE_FAKE_GPU: " + key + "=" + text + " is no number");
  }
  return number * found->second;
}

bool OneOf(const std::string& key, const std::string& text, const char* yes, const char* no) {
  if (text == yes) return true;
  if (text == no) return false;
  Misused("REPRISE_FAKE_GPU: " + key + "=" + text + " is neither " + yes + " nor " + no);
}

void Set(FakeGpuOptions& options, const std::string& key, const std::string& value) {
  if (key == "devices") {
    options.devices = static_cast<int>(Number(key, value));
  } else if (key == "first") {
    options.first = static_cast<int>(Number(key, value));
  } else if (key == "memory") {
    options.memory_bytes = Number(key, value);
  } else if (key == "ipc") {
    options.ipc = OneOf(key, value, "allow", "refuse");
  } else if (key == "peers") {
    options.peers = OneOf(key, value, "all", "none");
  } else if (key == "schedule") {
    options.deferred = OneOf(key, value, "deferred", "eager");
  } else if (key == "seed") {
    options.seed = Number(key, value);
  } else if (key == "touch") {
    options.touch_caught = OneOf(key, value, "caught", "allowed");
  } else if (key == "lost_after") {
    options.lost_after = Number(key, value);
  } else {
    Misused("REPRISE_FAKE_GPU: there is no " + key);
  }
}

}  // namespace

void Misused(const std::string& what) {
  std::fprintf(stderr, "fake GPU: %s\n", what.c_str());
  std::abort();
}

FakeGpuOptions ParseFakeGpuOptions(const std::string& text) {
  FakeGpuOptions options;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos) Misused("REPRISE_FAKE_GPU: " + part + " has no =");
    Set(options, part.substr(0, equals), part.substr(equals + 1));
  }
  return options;
}

void ConfigureFakeGpu(const FakeGpuOptions& options) {
  FakeGpu::Get().Configure(options);
}

FakeGpuUse UseOfFakeGpu() {
  return FakeGpu::Get().Use();
}

bool IsFakeDeviceMemory(const void* memory) {
  return FakeGpu::Get().IsDeviceMemory(memory);
}

FakeGpu& FakeGpu::Get() {
  // Never destroyed, like a driver: other statics free their memory at exit.
  static FakeGpu& gpu = *[] {
    auto* made = new FakeGpu;
    const char* text = std::getenv("REPRISE_FAKE_GPU");
    made->Configure(ParseFakeGpuOptions(text == nullptr ? "" : text));
    return made;
  }();
  return gpu;
}

void FakeGpu::Configure(const FakeGpuOptions& options) {
  if (const FakeGpuUse use = Use(); use.alive() != 0) {
    Misused("configured while " + std::to_string(use.buffers) + " buffers, " +
            std::to_string(use.openings) + " openings, " + std::to_string(use.pinned) +
            " pinned ranges, " + std::to_string(use.streams) + " streams and " +
            std::to_string(use.events) + " events are alive");
  }
  std::lock_guard lock(mu_);
  options_ = options;
  random_.seed(options.seed);
  lost_ = false;
  given_ = 0;
  counts_ = FakeGpuUse();
  streams_.clear();
  default_stream_ = std::make_unique<StreamState>();
  default_stream_->machine_device = options.first;
}

FakeGpuUse FakeGpu::Use() const {
  std::lock_guard lock(mu_);
  FakeGpuUse use = counts_;
  for (const auto& [address, range] : ranges_) {
    switch (range.kind) {
      case RangeKind::kDevice:
        ++use.buffers;
        use.device_bytes += range.bytes;
        break;
      case RangeKind::kOpened:
        ++use.openings;
        break;
      case RangeKind::kPinned:
      case RangeKind::kRegistered:
        ++use.pinned;
        break;
    }
  }
  for (const auto& stream : streams_) {
    if (!stream->destroyed) ++use.streams;
    use.pending += stream->work.size();
  }
  if (default_stream_ != nullptr) use.pending += default_stream_->work.size();
  use.events = events_.size();
  return use;
}

}  // namespace reprise::testing
