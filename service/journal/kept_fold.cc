#include "service/journal/kept_fold.h"

#include <utility>
#include <vector>

#include "proto/types/limits.h"

namespace reprise::shard {

void KeptFold::Add(DecodedBatch decoded) {
  contents_.skipped += decoded.skipped;
  KeptBatch& batch = decoded.batch;
  for (KeptSpace& space : batch.spaces) Add(std::move(space));
  for (KeptBlock& block : batch.blocks) Add(std::move(block));
  for (const SlotRef slot : batch.gone) last_.erase(slot);
  for (KeptClaim& claim : batch.claims) {
    if (Known(claim.space)) {
      contents_.claims.push_back(std::move(claim));
    } else {
      ++contents_.skipped;
    }
  }
  contents_.closed = batch.closed;  // nothing comes after an end
  if (contents_.blocks.size() > 2 * last_.size() + limits::kJournalBatchBlocks) DropSuperseded();
}

void KeptFold::Add(KeptSpace space) {
  const auto [known, added] = numbers_.try_emplace(space.number, contents_.spaces.size());
  if (added) {
    contents_.spaces.push_back(std::move(space));
  } else if (contents_.spaces[known->second] != space) {
    disputed_.insert(space.number);
    ++contents_.skipped;
  }
}

void KeptFold::Add(KeptBlock block) {
  if (!Known(block.space)) {
    last_.erase(block.slot);  // what was there is not any more, whatever this is
    ++contents_.skipped;
    return;
  }
  last_[block.slot] = contents_.blocks.size();
  contents_.blocks.push_back(std::move(block));
}

void KeptFold::DropSuperseded() {
  std::vector<KeptBlock>& blocks = contents_.blocks;
  size_t kept = 0;
  for (size_t at = 0; at < blocks.size(); ++at) {
    const auto last = last_.find(blocks[at].slot);
    if (last == last_.end() || last->second != at) continue;
    last->second = kept;
    if (kept != at) blocks[kept] = std::move(blocks[at]);
    ++kept;
  }
  blocks.resize(kept);
}

KeptContents KeptFold::Take() {
  DropSuperseded();
  if (!disputed_.empty()) {
    const auto disputed = [&](const auto& record) { return disputed_.contains(record.space); };
    contents_.skipped += std::erase_if(contents_.blocks, disputed);
    contents_.skipped += std::erase_if(contents_.claims, disputed);
    contents_.skipped += std::erase_if(
        contents_.spaces, [&](const KeptSpace& space) { return disputed_.contains(space.number); });
  }
  return std::move(contents_);
}

}  // namespace reprise::shard
