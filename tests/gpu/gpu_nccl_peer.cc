#include "tests/gpu/gpu_nccl_peer.h"

#include <grpcpp/server.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/nccl/nccl_communicator.h"
#include "cluster/lanes/nccl/nccl_parts.h"
#include "cluster/peer/nccl_shard_end.h"
#include "kernels/runtime/device.h"
#include "kernels/runtime/gpu_api.h"
#include "kernels/runtime/gpu_status.h"
#include "kernels/runtime/stream.h"
#include "proto/types/status_macros.h"
#include "proto/wire/serving.h"
#include "reprise/v1/peer.grpc.pb.h"
#include "tests/gpu/must.h"

namespace reprise::gpu_nccl {
namespace {

constexpr absl::Duration kBareStepMax = absl::Seconds(30);  // connecting included

// Looks as often as it can: what is measured is NCCL.
absl::Status AwaitBare(lanes::NcclCommunicator& communicator) {
  const auto deadline = lanes::MonotonicDeadline::After(kBareStepMax);
  while (!deadline.over()) {
    REPRISE_ASSIGN_OR_RETURN(const bool done, communicator.Poll());
    if (done) return absl::OkStatus();
  }
  return absl::DeadlineExceededError("bare NCCL: a step was not done in 30 s");
}

absl::Status Copy(uint8_t* to, const uint8_t* from, uint64_t bytes) {
  REPRISE_ASSIGN_OR_RETURN(const kernels::Stream stream, kernels::Stream::Create(0));
  REPRISE_RETURN_IF_ERROR(kernels::GpuStatus(
      kernels::GpuCopyAsync(to, from, bytes, stream.handle()), "copying a test's block"));
  return stream.Synchronize();
}

// "bare HEX SHAPE ROUNDS". `kept`: this end, until the next command.
std::string Obey(const cluster::NcclContext& nccl, Amount amount, const std::string& line,
                 std::optional<BareEnd>& kept) {
  kept.reset();
  std::istringstream in(line);
  std::string word;
  BareRun run{.rank = 1, .amount = amount};
  in >> word >> run.id >> run.shape >> run.rounds;
  if (word != "bare" || !in) return absl::StrCat("no such command: ", line);
  absl::StatusOr<BareEnd> end = RunBare(nccl, run);
  if (!end.ok()) return absl::StrCat("failed: ", end.status().ToString());
  kept.emplace(*std::move(end));
  return "done";
}

}  // namespace

std::vector<uint8_t> ContentOf(uint32_t shape, uint32_t block) {
  std::vector<uint8_t> bytes(kShapes[shape].block_bytes);
  uint64_t word = 0x9e3779b97f4a7c15ull * (1 + shape * 1000 + block);
  for (size_t at = 0; at < bytes.size(); at += sizeof(word)) {
    word = word * 6364136223846793005ull + 1442695040888963407ull;  // Knuth, MMIX
    std::memcpy(bytes.data() + at, &word, std::min(sizeof(word), bytes.size() - at));
  }
  return bytes;
}

absl::Status ToDevice(uint8_t* to, std::span<const uint8_t> from) {
  return Copy(to, from.data(), from.size());
}

absl::StatusOr<std::vector<uint8_t>> FromDevice(std::span<const uint8_t> from) {
  std::vector<uint8_t> bytes(from.size());
  REPRISE_RETURN_IF_ERROR(Copy(bytes.data(), from.data(), from.size()));
  return bytes;
}

absl::StatusOr<DeviceBlocks> DeviceBlocks::Create(Amount amount, uint32_t shape, bool filled) {
  const uint32_t count = amount.blocks(shape);
  const uint64_t block_bytes = kShapes[shape].block_bytes;
  REPRISE_ASSIGN_OR_RETURN(kernels::DeviceBuffer buffer,
                           kernels::DeviceBuffer::Create(0, count * block_bytes));
  DeviceBlocks blocks(std::move(buffer), block_bytes);
  for (uint32_t i = 0; filled && i < count; ++i) {
    REPRISE_RETURN_IF_ERROR(ToDevice(blocks.At(i).data(), ContentOf(shape, i)));
  }
  return blocks;
}

absl::StatusOr<std::unique_ptr<DeviceHost>> DeviceHost::Create(Amount amount) {
  std::unique_ptr<DeviceHost> host(new DeviceHost(amount));
  for (uint32_t shape = 0; shape < kShapeCount; ++shape) {
    REPRISE_ASSIGN_OR_RETURN(DeviceBlocks stored,
                             DeviceBlocks::Create(amount, shape, /*filled=*/true));
    REPRISE_ASSIGN_OR_RETURN(DeviceBlocks written,
                             DeviceBlocks::Create(amount, shape, /*filled=*/false));
    host->stored_.push_back(std::move(stored));
    host->written_.push_back(std::move(written));
  }
  return host;
}

absl::StatusOr<std::vector<lanes::PinnedBytes>> DeviceHost::OpenRead(AttachmentId, LeaseId lease,
                                                                     uint32_t first,
                                                                     uint32_t blocks) {
  const bool written = lease.value >= WrittenOf(0).value;
  const uint64_t shape = lease.value - (written ? WrittenOf(0).value : LeaseOf(0).value);
  if (shape >= kShapeCount || first + blocks > amount_.blocks(static_cast<uint32_t>(shape))) {
    return absl::NotFoundError("the test has no such lease");
  }
  std::vector<lanes::PinnedBytes> opened;
  for (uint32_t i = first; i < first + blocks; ++i) {
    opened.push_back({.bytes = (written ? written_ : stored_)[shape].At(i),
                      .memory = lanes::MemoryKind::kDevice});
  }
  return opened;
}

absl::StatusOr<lanes::PinnedSlot> DeviceHost::OpenWrite(AttachmentId, ReservationId reservation,
                                                        uint32_t block) {
  const uint64_t shape = reservation.value - ReservationOf(0).value;
  if (shape >= kShapeCount || block >= amount_.blocks(static_cast<uint32_t>(shape))) {
    return absl::NotFoundError("the test has no such reservation");
  }
  return lanes::PinnedSlot{.bytes = written_[shape].At(block),
                           .memory = lanes::MemoryKind::kDevice};
}

absl::StatusOr<std::string> NewBareId(const cluster::NcclContext& nccl) {
  ncclUniqueId id{};
  REPRISE_RETURN_IF_ERROR(
      nccl.parts().nccl->ToStatus(nccl.parts().nccl->GetUniqueId(&id), "ncclGetUniqueId"));
  return absl::BytesToHexString(absl::string_view(id.internal, sizeof(id.internal)));
}

absl::StatusOr<BareEnd> RunBare(const cluster::NcclContext& nccl, const BareRun& run) {
  const std::string id = absl::HexStringToBytes(run.id);
  if (run.shape >= kShapeCount || id.size() != sizeof(ncclUniqueId::internal)) {
    return absl::InvalidArgumentError("a bare run of no such shape, or with no such id");
  }
  REPRISE_ASSIGN_OR_RETURN(DeviceBlocks blocks, DeviceBlocks::Create(run.amount, run.shape, true));
  lanes::NcclCommunicator::Options options{
      .nccl = nccl.parts().nccl, .device = nccl.parts().device, .rank = run.rank};
  std::memcpy(options.id.internal, id.data(), id.size());
  REPRISE_ASSIGN_OR_RETURN(auto communicator, lanes::NcclCommunicator::Create(options));
  REPRISE_RETURN_IF_ERROR(AwaitBare(*communicator));
  lanes::NcclGroup group;
  for (uint32_t i = 0; i < run.amount.blocks(run.shape); ++i) {
    run.rank == 0 ? group.receives.push_back(blocks.At(i)) : group.sends.push_back(blocks.At(i));
  }
  std::vector<double> seconds;
  for (int round = 0; round <= run.rounds; ++round) {  // the first one warms
    const absl::Time start = absl::Now();
    REPRISE_RETURN_IF_ERROR(communicator->Begin(group));
    REPRISE_RETURN_IF_ERROR(AwaitBare(*communicator));
    if (round > 0) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  return BareEnd{std::move(blocks), std::move(communicator), std::move(seconds)};
}

int ServePeer(Amount amount, const std::string& listen, const std::string& commands,
              const std::string& nccl_library) {
  Must(kernels::UseDevice(0));
  const auto nccl = Must(cluster::NcclContext::Open(
      {.gpu = 0, .library = nccl_library, .connect_timeout = absl::Seconds(15)}));
  const auto host = Must(DeviceHost::Create(amount));
  const auto end = cluster::NcclShardEnd::Create(*nccl, host.get());
  const auto service =
      end->MakeService([](const grpc::ServerContextBase&, AttachmentId attachment) {
        return attachment == kAttachment ? absl::OkStatus()
                                         : absl::NotFoundError("no such attachment");
      });
  const wire::Listening serving =
      Must(wire::Listen({.listen = listen,
                         .services = {service.get()},
                         .name = v1::PeerService::service_full_name()}));
  std::printf("serves %s\n", serving.address.c_str());
  std::fflush(stdout);
  std::ifstream in(commands);
  std::string line;
  std::optional<BareEnd> kept;
  while (std::getline(in, line)) {
    std::printf("%s\n", Obey(*nccl, amount, line, kept).c_str());
    std::fflush(stdout);
  }
  serving.server->Shutdown();
  serving.server->Wait();
  return 0;
}

}  // namespace reprise::gpu_nccl
