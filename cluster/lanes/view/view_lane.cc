#include "cluster/lanes/view/view_lane.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "proto/types/limits.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

absl::Status Over() {
  return absl::DeadlineExceededError("view lane: the deadline is over");
}

// The places from `first` on that lie in device memory one after the other.
std::span<const view::Place> DeviceRun(const std::vector<view::Place>& places, size_t first) {
  size_t end = first;
  while (end < places.size() && places[end].memory == MemoryKind::kDevice) ++end;
  return {places.data() + first, end - first};
}

template <typename Byte>
std::vector<std::span<Byte>> SpansAt(const std::vector<uint8_t*>& at, uint64_t block_bytes) {
  std::vector<std::span<Byte>> spans;
  spans.reserve(at.size());
  for (uint8_t* block : at) spans.emplace_back(block, block_bytes);
  return spans;
}

// A peer that speaks nonsense is as good as none.
absl::Status AsLaneFailure(const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) return LaneDown(status.message());
  return status;
}

}  // namespace

// One call's use of a connection. A connection whose call ended in the middle of an exchange is
// closed, since the next answer on it would be this call's.
class ViewLane::Conversation {
 public:
  Conversation(ViewLane& lane, MonotonicDeadline deadline) : lane_(lane), deadline_(deadline) {}
  ~Conversation() {
    if (socket_.has_value()) lane_.connections_.GiveBack(in_step_ ? &*socket_ : nullptr);
  }

  absl::Status Start() {
    if (deadline_.over()) return Over();
    absl::StatusOr<view::ViewSocket> socket = lane_.connections_.Borrow(deadline_);
    if (!socket.ok()) return socket.status();
    socket_.emplace(*std::move(socket));
    return absl::OkStatus();
  }

  // Sends `request` and waits for its answer.
  template <typename Answer>
  absl::StatusOr<Answer> Ask(const view::Message& request, Descriptor* descriptor = nullptr) {
    in_step_ = false;
    REPRISE_RETURN_IF_ERROR(socket_->Send(request, deadline_));
    absl::StatusOr<Answer> answer = socket_->ReceiveOnly<Answer>(deadline_, descriptor);
    if (!answer.ok()) return AsLaneFailure(answer.status());
    in_step_ = true;
    return answer;
  }

  // Ends a reader's opening. Not waited for: a connection that cannot take it ends the opening by
  // closing.
  void Finish(view::Done done) { in_step_ = in_step_ && socket_->Send(done, deadline_).ok(); }

  // Gives up in the middle of an opening: the connection closes, and the opening with it.
  absl::Status Abandon(absl::Status status) {
    in_step_ = false;
    return status;
  }

  // The memory of one place in host memory, mapping its extent when it is new.
  absl::StatusOr<uint8_t*> At(const view::Place& place, uint64_t block_bytes, bool writable) {
    std::shared_ptr<const view::Mapping>& mapping = mapped_[place.extent];
    if (mapping == nullptr) mapping = lane_.extents_.Find(place.extent, writable);
    if (mapping == nullptr) {
      Descriptor file;
      REPRISE_ASSIGN_OR_RETURN(const view::Extent extent,
                               Ask<view::Extent>(view::MapExtent{place.extent}, &file));
      REPRISE_RETURN_IF_ERROR(extent.status);
      REPRISE_ASSIGN_OR_RETURN(mapping, view::Mapping::Create(file, extent.extent_bytes, writable));
      lane_.extents_.Add(place.extent, writable, mapping);
    }
    REPRISE_RETURN_IF_ERROR(CheckWithin(place, block_bytes, mapping->size_bytes()));
    return const_cast<uint8_t*>(mapping->data()) + place.offset_bytes;
  }

  // The same of places in device memory, as `device` reaches them: as many as there are before the
  // first that is out of reach, and why that one is.
  absl::Status AtDevice(std::span<const view::Place> places, uint64_t block_bytes, int device,
                        std::vector<uint8_t*>& at) {
    for (const view::Place& place : places) {
      std::shared_ptr<const view::DeviceMapping>& mapping = device_mapped_[place.extent];
      if (mapping == nullptr) mapping = lane_.device_extents_.Find(place.extent, device);
      if (mapping == nullptr) {
        REPRISE_RETURN_IF_ERROR(lane_.device_extents_.Possible(device));
        Descriptor tether;
        absl::StatusOr<view::Extent> answer =
            Ask<view::Extent>(view::MapExtent{place.extent}, &tether);
        REPRISE_ASSIGN_OR_RETURN(
            mapping,
            lane_.device_extents_.Map(place.extent, device, std::move(answer), std::move(tether)));
      }
      REPRISE_RETURN_IF_ERROR(CheckWithin(place, block_bytes, mapping->size_bytes()));
      at.push_back(mapping->data() + place.offset_bytes);
    }
    return absl::OkStatus();
  }

  // The same of places in host memory, as `device` copies from and to them: as many as there are
  // before the first one that is elsewhere or not pinned, which is then asked for.
  absl::StatusOr<std::vector<uint8_t*>> AtPinned(std::span<const view::Place> places,
                                                 uint64_t block_bytes, int device, bool writable) {
    std::vector<uint8_t*> at;
    for (const view::Place& place : places) {
      if (place.memory != MemoryKind::kHost) break;
      std::shared_ptr<const view::PinnedMapping>& mapping = pinned_[place.extent];
      const view::PinnedExtents::Key key{.extent = place.extent, .writable = writable};
      if (mapping == nullptr) mapping = lane_.pinned_extents_.Find(key);
      if (mapping == nullptr) {
        if (lane_.pinned_extents_.Wanted(key)) {
          Descriptor file;
          const auto answer = Ask<view::Extent>(view::MapExtent{place.extent}, &file);
          lane_.pinned_extents_.Pin(key, device, answer, std::move(file));
          REPRISE_RETURN_IF_ERROR(answer.status());
        }
        break;
      }
      REPRISE_RETURN_IF_ERROR(CheckWithin(place, block_bytes, mapping->size_bytes()));
      at.push_back(mapping->data() + place.offset_bytes);
    }
    return at;
  }

  // Which device AtDevice mapped a place for.
  int DeviceAt(const view::Place& place) const { return device_mapped_.at(place.extent)->device(); }

  bool over() const { return deadline_.over(); }

 private:
  static absl::Status CheckWithin(const view::Place& place, uint64_t block_bytes,
                                  uint64_t extent_bytes) {
    if (block_bytes <= extent_bytes && place.offset_bytes <= extent_bytes - block_bytes) {
      return absl::OkStatus();
    }
    return LaneDown("view lane: a place lies outside its extent");
  }

  ViewLane& lane_;
  const MonotonicDeadline deadline_;
  std::optional<view::ViewSocket> socket_;
  bool in_step_ = true;
  // By extent; keeps what this call uses mapped.
  absl::flat_hash_map<uint64_t, std::shared_ptr<const view::Mapping>> mapped_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<const view::DeviceMapping>> device_mapped_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<const view::PinnedMapping>> pinned_;
};

absl::StatusOr<std::unique_ptr<ViewLane>> ViewLane::Connect(Options options, absl::Time deadline) {
  std::unique_ptr<ViewLane> lane(new ViewLane(std::move(options)));
  Conversation first(*lane, MonotonicDeadline(deadline));
  REPRISE_RETURN_IF_ERROR(first.Start());
  return lane;
}

absl::Status ViewLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) {
  Conversation conversation(*this, MonotonicDeadline(deadline));
  REPRISE_RETURN_IF_ERROR(conversation.Start());
  REPRISE_ASSIGN_OR_RETURN(const view::Places opened,
                           conversation.Ask<view::Places>(
                               view::OpenRead{job.lease, job.first, job.blocks, job.block_bytes}));
  absl::Status status = opened.status;
  if (status.ok() && opened.places.size() != job.blocks)
    status = LaneDown("view lane: places are missing");
  uint32_t read = 0;  // blocks that were delivered
  while (status.ok() && read < job.blocks) {
    if (conversation.over()) {
      status = Over();
      break;
    }
    if (const auto run = DeviceRun(opened.places, read); !run.empty()) {
      status = ReadDevice(conversation, job, run, sink, read);
      continue;
    }
    const uint32_t before = read;
    status = ReadPinned(conversation, job, opened.places, sink, read);
    if (read > before || !status.ok()) continue;
    const absl::StatusOr<uint8_t*> block =
        conversation.At(opened.places[read], job.block_bytes, /*writable=*/false);
    status = block.ok() ? sink.Deliver(read, {*block, job.block_bytes}) : block.status();
    if (status.ok()) ++read;
  }
  // Told only where it is not all of them: a shard that does not know of the number hears it there
  // as a call that went wrong, which it is.
  conversation.Finish(status.ok() ? view::Done{} : view::Done{.blocks = read});
  return status;
}

absl::Status ViewLane::ReadPinned(Conversation& conversation, const ReadJob& job,
                                  std::span<const view::Place> places, BlockSink& sink,
                                  uint32_t& read) {
  if (sink.memory() != MemoryKind::kDevice) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(
      const std::vector<uint8_t*> at,
      conversation.AtPinned(places.subspan(read), job.block_bytes, sink.device(),
                            /*writable=*/false));
  if (at.empty()) return absl::OkStatus();
  REPRISE_RETURN_IF_ERROR(sink.DeliverPinned(read, SpansAt<const uint8_t>(at, job.block_bytes)));
  read += static_cast<uint32_t>(at.size());
  return absl::OkStatus();
}

absl::Status ViewLane::ReadDevice(Conversation& conversation, const ReadJob& job,
                                  std::span<const view::Place> places, BlockSink& sink,
                                  uint32_t& read) {
  const bool direct = sink.memory() == MemoryKind::kDevice;
  const int device = direct ? sink.device() : view::kNearestDevice;
  std::vector<uint8_t*> at;
  const absl::Status reached = conversation.AtDevice(places, job.block_bytes, device, at);
  if (direct && !at.empty()) {
    if (conversation.over()) return Over();
    REPRISE_RETURN_IF_ERROR(sink.DeliverDevice(read, SpansAt<const uint8_t>(at, job.block_bytes)));
    read += static_cast<uint32_t>(at.size());
    return reached;
  }
  for (uint32_t i = 0; i < at.size(); ++i) {
    if (conversation.over()) return Over();
    const std::span<uint8_t> buffer = sink.Buffer(read);
    REPRISE_RETURN_IF_ERROR(device_extents_.Copy(conversation.DeviceAt(places[i]), buffer.data(),
                                                 at[i], job.block_bytes));
    REPRISE_RETURN_IF_ERROR(sink.Complete(read));
    ++read;
  }
  return reached;
}

absl::Status ViewLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  Conversation conversation(*this, MonotonicDeadline(deadline));
  REPRISE_RETURN_IF_ERROR(conversation.Start());
  REPRISE_ASSIGN_OR_RETURN(const view::Places opened,
                           conversation.Ask<view::Places>(
                               view::OpenWrite{job.reservation, job.block_bytes, job.blocks}));
  absl::Status status;
  uint32_t filled = 0;
  while (filled < opened.places.size() && filled < job.blocks.size()) {
    if (conversation.over()) return conversation.Abandon(Over());
    if (const auto run = DeviceRun(opened.places, filled); !run.empty()) {
      status = WriteDevice(conversation, job, run, source, filled);
      if (status.ok()) continue;
      if (conversation.over()) return conversation.Abandon(status);
      break;
    }
    const uint32_t before = filled;
    status = WritePinned(conversation, job, opened.places, source, filled);
    if (!status.ok()) break;
    if (filled > before) continue;
    const absl::StatusOr<uint8_t*> slot =
        conversation.At(opened.places[filled], job.block_bytes, /*writable=*/true);
    status = slot.ok() ? source.Fill(filled, {*slot, job.block_bytes}) : slot.status();
    if (!status.ok()) break;
    ++filled;
  }
  const absl::StatusOr<view::Outcome> told = conversation.Ask<view::Outcome>(view::Written{filled});
  if (!status.ok()) return status;
  REPRISE_RETURN_IF_ERROR(told.status());
  REPRISE_RETURN_IF_ERROR(told->status);
  if (!opened.status.ok()) return opened.status;
  return filled == job.blocks.size() ? absl::OkStatus() : LaneDown("view lane: places are missing");
}

absl::Status ViewLane::WriteDevice(Conversation& conversation, const WriteJob& job,
                                   std::span<const view::Place> places, BlockSource& source,
                                   uint32_t& filled) {
  const bool direct = source.memory() == MemoryKind::kDevice;
  const int device = direct ? source.device() : view::kNearestDevice;
  std::vector<uint8_t*> at;
  const absl::Status reached = conversation.AtDevice(places, job.block_bytes, device, at);
  if (direct) {
    REPRISE_RETURN_IF_ERROR(
        WriteRun(conversation, source, &BlockSource::FillDevice, at, job.block_bytes, filled));
    return reached;
  }
  for (size_t i = 0; i < at.size(); ++i) {
    if (conversation.over()) return Over();
    REPRISE_ASSIGN_OR_RETURN(const std::span<const uint8_t> bytes, source.Bytes(filled));
    if (bytes.size() != job.block_bytes) {
      return absl::InvalidArgumentError("view lane: the source's block has another size");
    }
    REPRISE_RETURN_IF_ERROR(
        device_extents_.Copy(conversation.DeviceAt(places[i]), at[i], bytes.data(), bytes.size()));
    ++filled;
  }
  return reached;
}

absl::Status ViewLane::WritePinned(Conversation& conversation, const WriteJob& job,
                                   std::span<const view::Place> places, BlockSource& source,
                                   uint32_t& filled) {
  if (source.memory() != MemoryKind::kDevice) return absl::OkStatus();
  REPRISE_ASSIGN_OR_RETURN(
      const std::vector<uint8_t*> at,
      conversation.AtPinned(places.subspan(filled), job.block_bytes, source.device(),
                            /*writable=*/true));
  return WriteRun(conversation, source, &BlockSource::FillPinned, at, job.block_bytes, filled);
}

absl::Status ViewLane::WriteRun(const Conversation& conversation, BlockSource& source,
                                FillMany fill_many, const std::vector<uint8_t*>& at,
                                uint64_t block_bytes, uint32_t& filled) {
  const std::vector<std::span<uint8_t>> slots = SpansAt<uint8_t>(at, block_bytes);
  if (slots.empty()) return absl::OkStatus();
  if ((source.*fill_many)(filled, slots).ok()) {
    filled += static_cast<uint32_t>(slots.size());
    return absl::OkStatus();
  }
  // One by one, so that the blocks before its failure are written.
  for (const std::span<uint8_t>& slot : slots) {
    if (conversation.over()) return Over();
    REPRISE_RETURN_IF_ERROR((source.*fill_many)(filled, {&slot, 1}));
    ++filled;
  }
  return absl::OkStatus();
}

absl::StatusOr<view::ViewSocket> ViewLane::Dial(MonotonicDeadline deadline) {
  REPRISE_ASSIGN_OR_RETURN(view::ViewSocket socket,
                           view::ViewSocket::Connect(options_.socket, deadline));
  REPRISE_RETURN_IF_ERROR(socket.Send(view::Hello{options_.attachment}, deadline));
  absl::StatusOr<view::Outcome> welcome = socket.ReceiveOnly<view::Outcome>(deadline);
  if (!welcome.ok()) return AsLaneFailure(welcome.status());
  REPRISE_RETURN_IF_ERROR(welcome->status);
  return socket;
}

}  // namespace reprise::lanes
