// What is stored, chain by chain: for those who copy it to other shards.

#include <algorithm>
#include <utility>

#include "service/shard/shard_engine_impl.h"

namespace reprise::shard {

std::vector<ChainEnd> ShardEngineImpl::Chains() const {
  std::vector<std::pair<uint64_t, ChainEnd>> by_stamp;
  absl::MutexLock lock(&mu_);
  for (const auto& [id, space] : spaces_) {
    for (BlockId root = space->roots; root != kNoBlock; root = blocks_[root].next_sibling) {
      for (BlockId at = root; at != kNoBlock; at = blocks_.NextBelow(root, at, false)) {
        if (blocks_[at].children > 0) continue;
        by_stamp.emplace_back(order_.last_use(at), ChainEnd{.tenant = space->tenant,
                                                            .fingerprint = space->fingerprint,
                                                            .first = blocks_[root].key,
                                                            .last = blocks_[at].key});
      }
    }
  }
  std::sort(by_stamp.begin(), by_stamp.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<ChainEnd> ends;
  ends.reserve(by_stamp.size());
  for (auto& [stamp, end] : by_stamp) ends.push_back(std::move(end));
  return ends;
}

std::optional<CommittedChain> ShardEngineImpl::ChainTo(const ChainEnd& end) const {
  absl::MutexLock lock(&mu_);
  const KeySpace* const space = FindSpace(end.tenant, end.fingerprint);
  if (space == nullptr) return std::nullopt;
  const std::optional<IndexEntry> entry = index_.Find(SpaceKey{space->id, end.last});
  if (!entry.has_value()) return std::nullopt;
  CommittedChain chain = DescribeChain(*space, entry->block, blocks_[entry->block].depth + 1);
  chain.claims = ClaimsOn(entry->block);
  return chain;
}

CommittedChain ShardEngineImpl::DescribeChain(const KeySpace& space, BlockId leaf,
                                              size_t new_blocks) const {
  CommittedChain chain{
      .tenant = space.tenant, .spec = space.spec, .session_id = blocks_[leaf].chain->session_id};
  const uint32_t length = blocks_[leaf].depth + 1;
  const uint32_t block_tokens = space.spec.block_tokens;
  chain.keys.resize(length);
  chain.token_ids.resize(size_t{length} * block_tokens);
  chain.first_new = length - static_cast<uint32_t>(new_blocks);
  for (BlockId id = leaf; id != kNoBlock; id = blocks_[id].parent) {
    const BlockRecord& block = blocks_[id];
    chain.keys[block.depth] = block.key;
    if (block.chain->token_ids.empty()) chain.token_ids.clear();
    if (chain.token_ids.empty()) continue;
    const auto from = block.chain->token_ids.begin() +
                      size_t{block.depth - block.chain->first_block} * block_tokens;
    std::copy_n(from, block_tokens, chain.token_ids.begin() + size_t{block.depth} * block_tokens);
  }
  return chain;
}

}  // namespace reprise::shard
