#include <cstring>

#include "service/pool/dram_pool.h"
#include "tests/conformance/pool/pool_conformance.h"

namespace reprise::shard {
namespace {

struct DramTraits {
  static std::unique_ptr<Pool> Make() { return DramPool::Create(6 << 20).value(); }
  static void Put(uint8_t* to, std::span<const uint8_t> bytes) {
    std::memcpy(to, bytes.data(), bytes.size());
  }
  static std::vector<uint8_t> Get(const uint8_t* from, size_t bytes) {
    return {from, from + bytes};
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Dram, PoolConformance, DramTraits);

}  // namespace
}  // namespace reprise::shard
