// A client that reserves, writes half of its blocks, takes a lease, says so, and waits to be
// killed. Arguments: the shard's address; the name of a stored chain; the name of the chain to
// write.

#include <unistd.h>

#include <cstdio>

#include "tests/support/stored_chain.h"

namespace reprise::testing {
namespace {

constexpr uint64_t kBlockBytes = 64 << 10;
constexpr size_t kBlocks = 8;

absl::Status Run(char** arguments) {
  REPRISE_ASSIGN_OR_RETURN(const std::unique_ptr<cluster::ShardLink> link,
                           cluster::ShardLink::Connect(
                               {.address = arguments[1], .client_name = "to be killed"}, Soon()));
  const CacheSpec spec = SpecOf(kBlockBytes);
  REPRISE_ASSIGN_OR_RETURN(const cluster::OpenedSpec opened, link->OpenSpec(spec, Soon()));
  REPRISE_RETURN_IF_ERROR(
      link->Acquire(opened.handle, ChainNamed(arguments[2], kBlocks), 0, Soon()).status());
  const std::vector<BlockKey> keys = ChainNamed(arguments[3], kBlocks);
  REPRISE_ASSIGN_OR_RETURN(const cluster::ReservedRun reserved,
                           link->Reserve({.spec = opened.handle, .keys = keys}, Soon()));
  ContentSource source(keys, opened.block_bytes);
  std::vector<uint32_t> half;
  for (uint32_t i = 0; i < kBlocks / 2; ++i) half.push_back(i);
  REPRISE_RETURN_IF_ERROR(
      link->lane().Write({reserved.reservation, half, opened.block_bytes}, source, Soon()));
  std::printf("ready\n");
  std::fflush(stdout);
  while (true) pause();
  return absl::OkStatus();
}

}  // namespace
}  // namespace reprise::testing

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const absl::Status status = reprise::testing::Run(argv);
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
