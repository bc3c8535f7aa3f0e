// What NCCL itself costs on one GPU: one rank that sends to itself, in groups as the lane makes
// them, beside one copy from device to device; and its first transfer beside a later one.
//   reprise-gpu-nccl-self [--skip-exit=N] [--nccl-library=PATH]
// Wanted: at 64 MiB at least half the copy's rate; a first transfer, after the lane's own warming,
// at most 1.2 times a later one. Both are measured and not judged. Without a GPU or without libnccl
// it says SKIPPED and why.
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cluster/lanes/nccl/nccl_library.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/memory.h"
#include "kernels/runtime/stream.h"
#include "proto/types/limits.h"
#include "tests/gpu/must.h"

namespace reprise::gpu_nccl {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSendBytes = 2 * kMiB;  // a block of Llama-3-8B
constexpr uint64_t kTotals[] = {2 * kMiB, 16 * kMiB, 64 * kMiB, 256 * kMiB};
constexpr int kRounds = 25;
constexpr absl::Duration kStepMax = absl::Seconds(60);

class SelfRank {
 public:
  explicit SelfRank(const lanes::NcclLibrary& nccl)
      : nccl_(nccl), stream_(Must(kernels::Stream::Create(0))) {
    ncclUniqueId id;
    Must(nccl_.ToStatus(nccl_.GetUniqueId(&id), "ncclGetUniqueId"));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    Must(nccl_.ToStatus(nccl_.CommInitRankConfig(&comm_, 1, id, 0, &config),
                        "ncclCommInitRankConfig"));
    Await();
  }
  ~SelfRank() { static_cast<void>(nccl_.CommAbort(comm_)); }
  SelfRank(const SelfRank&) = delete;
  SelfRank& operator=(const SelfRank&) = delete;

  // In sends of at most kSendBytes, one group.
  void Send(const uint8_t* from, uint8_t* to, uint64_t bytes) {
    Must(nccl_.ToStatus(nccl_.GroupStart(), "ncclGroupStart"));
    for (uint64_t at = 0; at < bytes; at += kSendBytes) {
      const uint64_t part = std::min(kSendBytes, bytes - at);
      Must(nccl_.ToStatus(nccl_.Send(from + at, part, ncclUint8, 0, comm_, stream_.handle()),
                          "ncclSend"));
      Must(nccl_.ToStatus(nccl_.Recv(to + at, part, ncclUint8, 0, comm_, stream_.handle()),
                          "ncclRecv"));
    }
    Must(nccl_.ToStatus(nccl_.GroupEnd(), "ncclGroupEnd"));
    Await();
  }
  const kernels::Stream& stream() const { return stream_; }

 private:
  void Await() {
    for (const absl::Time end = absl::Now() + kStepMax; absl::Now() < end;) {
      ncclResult_t state = ncclSuccess;
      Must(nccl_.ToStatus(nccl_.CommGetAsyncError(comm_, &state), "ncclCommGetAsyncError"));
      Must(nccl_.ToStatus(state, "the communicator"));
      if (state == ncclSuccess) return Must(stream_.Synchronize());
    }
    Must(absl::DeadlineExceededError("NCCL was not done in a minute"));
  }

  const lanes::NcclLibrary& nccl_;
  const kernels::Stream stream_;
  ncclComm_t comm_ = nullptr;
};

double Seconds(const std::function<void()>& work) {
  const absl::Time start = absl::Now();
  work();
  return absl::ToDoubleSeconds(absl::Now() - start);
}

double MedianSeconds(const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i < kRounds; ++i) seconds.push_back(Seconds(work));
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

int Run(const lanes::NcclLibrary& nccl) {
  Must(kernels::UseDevice(0));
  const uint64_t most = *std::max_element(std::begin(kTotals), std::end(kTotals));
  const auto from = Must(kernels::DeviceBuffer::Create(0, most));
  const auto to = Must(kernels::DeviceBuffer::Create(0, most));
  SelfRank rank(nccl);
  const kernels::Stream& stream = rank.stream();
  Must(kernels::FillAsync(from.data(), 0x5C, most, stream.handle()));
  Must(kernels::FillAsync(to.data(), 0, most, stream.handle()));
  Must(stream.Synchronize());

  const double warming =
      Seconds([&] { rank.Send(from.data(), to.data(), limits::kNcclWarmBytes); });
  const double first = Seconds([&] { rank.Send(from.data(), to.data(), 64 * kMiB); });
  const double later = MedianSeconds([&] { rank.Send(from.data(), to.data(), 64 * kMiB); });
  std::printf(
      "NCCL %s, one rank; warming with %d bytes took %.1f ms; then the first 64 MiB took "
      "%.2f of a later time (wanted: at most 1.20)\n\n",
      nccl.VersionText().c_str(), static_cast<int>(limits::kNcclWarmBytes), warming * 1e3,
      first / later);

  std::printf("| MiB in sends of 2 MiB | send to self, GB/s read + written | copy | ratio |\n");
  std::printf("|---:|---:|---:|---:|\n");
  for (const uint64_t bytes : kTotals) {
    const double sent = MedianSeconds([&] { rank.Send(from.data(), to.data(), bytes); });
    const double copied = MedianSeconds([&] {
      Must(kernels::CopyAsync(to.data(), from.data(), bytes, stream.handle()));
      Must(stream.Synchronize());
    });
    const double moved = 2 * static_cast<double>(bytes) / 1e9;
    std::printf("| %d | %.0f | %.0f | %.2f |\n", static_cast<int>(bytes / kMiB), moved / sent,
                moved / copied, copied / sent);
  }

  std::vector<uint8_t> came(most);
  Must(kernels::CopyAsync(came.data(), to.data(), most, stream.handle()));
  Must(stream.Synchronize());
  const bool right = std::all_of(came.begin(), came.end(), [](uint8_t b) { return b == 0x5C; });
  std::printf("%s: the bytes are those that were sent\n", right ? "ok" : "FAILED");
  return right ? 0 : 1;
}

}  // namespace
}  // namespace reprise::gpu_nccl

int main(int argc, char** argv) {
  int skip_exit = 0;
  const char* library = std::getenv("REPRISE_NCCL_LIBRARY");
  std::string path = library == nullptr ? "" : library;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--skip-exit=")) {
      skip_exit = std::atoi(std::string(argument).c_str());
    } else if (absl::ConsumePrefix(&argument, "--nccl-library=")) {
      path = std::string(argument);
    } else {
      std::fprintf(stderr, "%s is not known; usage: %s [--skip-exit=N] [--nccl-library=PATH]\n",
                   argv[i], argv[0]);
      return 2;
    }
  }
  if (reprise::kernels::DeviceCount() == 0) {
    std::printf("SKIPPED: %s\n", reprise::kernels::WhyNoDevice().c_str());
    return skip_exit;
  }
  const auto nccl = reprise::lanes::NcclLibrary::Load(path);
  if (!nccl.ok()) {
    std::printf("SKIPPED: %s\n", std::string(nccl.status().message()).c_str());
    return skip_exit;
  }
  return reprise::gpu_nccl::Run(**nccl);
}
