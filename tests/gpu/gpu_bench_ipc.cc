// H6: another process's pool, mapped through CUDA IPC, read as fast as one's own.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/runtime/device.h"
#include "tests/gpu/gpu_bench.h"
#include "tests/gpu/must.h"

extern char** environ;

namespace reprise::gpu_bench {
namespace {

using kernels::CopyAsync;
using kernels::DeviceBuffer;
using kernels::IpcHandle;
using kernels::OpenedDeviceMemory;
using kernels::Stream;

constexpr uint64_t kIpcBytes = kPromptBlocks * kBlockBytes;

std::string Hex(const IpcHandle& handle) {
  std::string text;
  for (uint8_t byte : handle) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", byte);
    text += digits;
  }
  return text;
}

IpcHandle FromHex(const std::string& text) {
  IpcHandle handle{};
  for (size_t i = 0; i < handle.size() && 2 * i + 1 < text.size(); ++i) {
    handle[i] = static_cast<uint8_t>(std::strtoul(text.substr(2 * i, 2).c_str(), nullptr, 16));
  }
  return handle;
}

Timing TimeCopyFrom(const uint8_t* source) {
  Stream stream = Must(Stream::Create(0));
  const DeviceBuffer copy = Must(DeviceBuffer::Create(0, kIpcBytes));
  return Time(stream.handle(),
              [&](int) { Must(CopyAsync(copy.data(), source, kIpcBytes, stream.handle())); });
}

// Runs this program as the other process; its line of output, or "" when it failed.
std::string RunChild(const std::string& handle_hex) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  std::vector<std::string> words = {"reprise-gpu-bench", "--ipc-child", handle_hex};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int spawned =
      posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  char part[256];
  for (ssize_t count; spawned == 0 && (count = read(ends[0], part, sizeof(part))) > 0;)
    output.append(part, count);
  close(ends[0]);
  int status = 1;
  if (spawned == 0) waitpid(child, &status, 0);
  return status == 0 ? output : "";
}

}  // namespace

int IpcChild(const std::string& handle_hex) {
  absl::StatusOr<OpenedDeviceMemory> opened =
      OpenedDeviceMemory::Create(0, FromHex(handle_hex), kIpcBytes);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
    return 1;
  }
  std::printf("%.6f\n", TimeCopyFrom(opened->data()).median_ms);
  return 0;
}

void IpcCases(Bench& bench, Table& table) {
  const Timing own = TimeCopyFrom(bench.blocks.data());
  table.Control("copy of 256 MiB inside one process", Rate(2 * kIpcBytes, own), own.spread);
  const absl::StatusOr<IpcHandle> handle = bench.blocks.Export();
  const std::string output = handle.ok() ? RunChild(Hex(*handle)) : "";
  const double milliseconds = std::atof(output.c_str());
  if (milliseconds <= 0) {
    std::printf("SKIPPED H6: CUDA IPC is refused here (%s)\n",
                handle.ok() ? "the second process could not open the handle"
                            : handle.status().ToString().c_str());
    return;
  }
  table.Case({.goal = "H6",
              .name = "copy of 256 MiB from another process's memory (time)",
              .gb_per_s = 2.0 * kIpcBytes / milliseconds / 1e6,
              .control = "copy of 256 MiB inside one process",
              .ratio = milliseconds / own.median_ms,
              .wanted = 1.1,
              .at_most = true});
}

}  // namespace reprise::gpu_bench
