// Stores the K/V blocks of a prompt and reads them back: `reprise-example ROUTER` (host:port).

#include <cstdint>
#include <cstdio>
#include <numeric>
#include <utility>
#include <vector>

#include "client/cpp/client.h"
#include "client/cpp/prefix_hasher.h"
#include "proto/types/status_macros.h"

namespace {

using reprise::client::CallerMemory;
using reprise::client::Client;

CallerMemory OneBufferPerBlock(std::vector<uint8_t>& bytes, uint64_t block_bytes) {
  CallerMemory memory;
  for (uint64_t at = 0; at < bytes.size(); at += block_bytes) memory.buffers.push_back(&bytes[at]);
  return memory;
}

absl::Status StoreAndFetch(const char* router) {
  std::vector<uint32_t> tokens(64);
  std::iota(tokens.begin(), tokens.end(), 0);
  // README begin
  REPRISE_ASSIGN_OR_RETURN(auto client, Client::Create({.routers = {router}, .name = "example"}));
  REPRISE_ASSIGN_OR_RETURN(auto spec, client->OpenSpec({.model = "my-model",
                                                        .attention = reprise::AttentionKind::kGqa,
                                                        .dtype = reprise::DataType::kBf16,
                                                        .layers = 4,
                                                        .kv_heads = 2,
                                                        .head_dim = 64,
                                                        .block_tokens = 16}));
  const auto keys = reprise::client::PrefixKeys(tokens, 16);
  std::vector<uint8_t> kv(keys.size() * spec->layout.block_bytes, 7);
  std::vector<uint8_t> back(kv.size());
  const CallerMemory from = OneBufferPerBlock(kv, spec->layout.block_bytes);
  const CallerMemory into = OneBufferPerBlock(back, spec->layout.block_bytes);
  REPRISE_ASSIGN_OR_RETURN(
      auto stored,
      client->Store({.spec = spec, .keys = keys, .session = "user-1", .memory = from}));
  REPRISE_ASSIGN_OR_RETURN(auto found,
                           client->Acquire({.spec = spec, .keys = keys, .session = "user-1"}));
  const uint32_t run = found.run->blocks();  // a miss is 0 blocks, not an error
  REPRISE_ASSIGN_OR_RETURN(auto got, client->Fetch(found.run, {.count = run, .memory = into}));
  // README end
  std::printf("stored %u, present %u, leased %u, fetched and verified %u of %zu blocks\n",
              stored.stored, stored.present, run, got.blocks, keys.size());
  if (got.blocks == keys.size() && back == kv) return absl::OkStatus();
  return absl::DataLossError("not every block came back");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s ROUTER_HOST:PORT\n", argv[0]);
    return 2;
  }
  const absl::Status status = StoreAndFetch(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
