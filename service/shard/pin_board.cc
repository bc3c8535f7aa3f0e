#include "service/shard/pin_board.h"

#include <utility>

namespace reprise::shard {

struct PinBoard::Holder {
  Holder(std::shared_ptr<PinBoard> b, std::vector<BlockId> ids)
      : board(std::move(b)), blocks(std::move(ids)) {}
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder() { board->Drop(blocks); }

  const std::shared_ptr<PinBoard> board;
  const std::vector<BlockId> blocks;
};

std::shared_ptr<const void> PinBoard::Pin(std::shared_ptr<PinBoard> board,
                                          std::vector<BlockId> blocks) {
  return std::make_shared<Holder>(std::move(board), std::move(blocks));
}

void PinBoard::Drop(const std::vector<BlockId>& blocks) {
  absl::MutexLock lock(&mu_);
  if (owner_ != nullptr) owner_->Unpinned(blocks);
}

void PinBoard::Close() {
  absl::MutexLock lock(&mu_);
  owner_ = nullptr;
}

}  // namespace reprise::shard
