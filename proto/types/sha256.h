// SHA-256 with a reused context: about three times the rate of one-shot digests on short inputs.
//
// Thread safety: one Sha256 per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "proto/types/block_key.h"

struct evp_md_ctx_st;

namespace reprise {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  // The digest of one contiguous input.
  void Hash(std::span<const uint8_t> input, std::span<uint8_t, kDigestBytes> digest);

 private:
  evp_md_ctx_st* context_;
};

}  // namespace reprise
