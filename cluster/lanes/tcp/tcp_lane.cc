#include "cluster/lanes/tcp/tcp_lane.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/lanes/lane_status.h"
#include "cluster/lanes/monotonic_deadline.h"
#include "cluster/lanes/tcp/tcp_sockets.h"
#include "proto/types/clock.h"
#include "proto/types/status_macros.h"

namespace reprise::lanes {
namespace {

constexpr char kLane[] = "tcp lane";

absl::Status Over() {
  return absl::DeadlineExceededError(absl::StrCat(kLane, ": the deadline is over"));
}

// Whether the shard may be asked again, over gRPC, while it may be about to answer: what asks for
// slots would find them taken by itself.
bool HarmlessTwice(tcp::Verb verb) {
  return verb != tcp::Verb::kReserve && verb != tcp::Verb::kCommit;
}

}  // namespace

// One call's use of a connection. A connection whose call ended in the middle is closed, since what
// comes next on it would be this call's.
class TcpLane::Call {
 public:
  Call(TcpLane& lane, MonotonicDeadline deadline) : lane_(lane), deadline_(deadline) {}
  ~Call() {
    if (socket_.has_value()) lane_.connections_.GiveBack(in_step_ ? &*socket_ : nullptr);
  }

  absl::Status Start() {
    if (deadline_.over()) return Over();
    return Use(lane_.connections_.Borrow(deadline_));
  }

  // The same without waiting for a connection: nullopt when all are busy.
  std::optional<absl::Status> StartNow() {
    if (deadline_.over()) return Over();
    std::optional<absl::StatusOr<tcp::DataSocket>> socket = lane_.connections_.BorrowNow(deadline_);
    if (!socket.has_value()) return std::nullopt;
    return Use(*std::move(socket));
  }

  absl::Status Read(const ReadJob& job, BlockSink& sink) {
    in_step_ = false;
    REPRISE_RETURN_IF_ERROR(
        socket_->Send(tcp::Read{job.lease, job.first, job.blocks, job.block_bytes}, deadline_));
    for (uint32_t i = 0; i < job.blocks; ++i) {
      const absl::StatusOr<tcp::Header> header = socket_->ReceiveHeader(deadline_);
      if (!header.ok()) return tcp::AsLaneFailure(header.status());
      if (!header->is_block()) return WhyNot(*header);
      if (header->block != job.first + i || header->body_bytes != job.block_bytes) {
        return LaneDown(absl::StrCat(kLane, ": block ", header->block, " of ", header->body_bytes,
                                     " bytes came where block ", job.first + i, " was due"));
      }
      REPRISE_RETURN_IF_ERROR(socket_->ReceiveBytes(sink.Buffer(i), deadline_));
      in_step_ = i + 1 == job.blocks;
      REPRISE_RETURN_IF_ERROR(sink.Complete(i));
    }
    return absl::OkStatus();
  }

  absl::Status Write(const WriteJob& job, BlockSource& source) {
    in_step_ = false;
    REPRISE_RETURN_IF_ERROR(socket_->Send(tcp::Write{job.reservation, job.block_bytes}, deadline_));
    absl::Status source_status;
    size_t sent = 0;
    for (; sent < job.blocks.size(); ++sent) {
      const absl::StatusOr<std::span<const uint8_t>> bytes =
          source.Bytes(static_cast<uint32_t>(sent));
      source_status = bytes.ok() ? CheckBlockBytes(job.blocks[sent], bytes->size(), job.block_bytes)
                                 : bytes.status();
      // What the shard says before the end is why it takes no more.
      if (!source_status.ok() || !socket_->Quiet()) break;
      REPRISE_RETURN_IF_ERROR(socket_->SendBlock(job.blocks[sent], *bytes, deadline_));
    }
    // The blocks that were sent whole are written when the shard has answered, whatever the source
    // said of the next.
    REPRISE_RETURN_IF_ERROR(socket_->Send(tcp::WriteEnd{}, deadline_));
    const absl::StatusOr<tcp::Outcome> outcome = socket_->ReceiveOnly<tcp::Outcome>(deadline_);
    in_step_ = outcome.ok();
    if (!source_status.ok()) return source_status;
    if (!outcome.ok()) return outcome.status();
    if (outcome->status.ok() && sent < job.blocks.size()) {
      return LaneDown(absl::StrCat(kLane, ": the shard said OK after ", sent, " of ",
                                   job.blocks.size(), " blocks"));
    }
    return outcome->status;
  }

  absl::StatusOr<std::string> Ask(tcp::Verb verb, absl::string_view request) {
    in_step_ = false;
    if (!HarmlessTwice(verb)) socket_->set_stall(absl::InfiniteDuration());
    REPRISE_RETURN_IF_ERROR(socket_->SendVerb(verb, request, deadline_));
    const absl::StatusOr<tcp::Header> header = socket_->ReceiveHeader(deadline_);
    if (!header.ok()) return tcp::AsLaneFailure(header.status());
    if (!header->is_answer()) return WhyNot(*header);
    if (header->verb() != verb) return tcp::OutOfStep(header->type);
    REPRISE_ASSIGN_OR_RETURN(std::string answer, socket_->ReceiveBody(*header, deadline_));
    in_step_ = true;
    return answer;
  }

 private:
  absl::Status Use(absl::StatusOr<tcp::DataSocket> socket) {
    REPRISE_RETURN_IF_ERROR(socket.status());
    socket_ = *std::move(socket);
    socket_->set_stall(deadline_.left() * limits::kLaneDeadlineShare);
    return absl::OkStatus();
  }

  // What came instead of a block or an answer.
  absl::Status WhyNot(const tcp::Header& header) {
    const absl::StatusOr<tcp::Message> message = socket_->ReceiveMessage(header, deadline_);
    if (!message.ok()) return tcp::AsLaneFailure(message.status());
    const auto* const outcome = std::get_if<tcp::Outcome>(&*message);
    if (outcome == nullptr || outcome->status.ok()) return tcp::OutOfStep(header.type);
    in_step_ = true;
    return outcome->status;
  }

  TcpLane& lane_;
  const MonotonicDeadline deadline_;
  std::optional<tcp::DataSocket> socket_;
  bool in_step_ = true;
};

TcpLane::TcpLane(Options options, std::unique_ptr<const tcp::TlsContext> tls)
    : options_(std::move(options)),
      tls_(std::move(tls)),
      connections_({.lane = kLane,
                    .connections_max = limits::kTcpConnectionsPerLaneMax,
                    .retry_after = absl::ZeroDuration(),
                    .dial = [this](MonotonicDeadline deadline) { return Dial(deadline); }}) {}

TcpLane::~TcpLane() {
  std::thread dialler;
  {
    absl::MutexLock lock(&mu_);
    dialler = std::move(dialler_);
  }
  if (dialler.joinable()) dialler.join();
}

absl::StatusOr<std::unique_ptr<TcpLane>> TcpLane::Create(Options options) {
  std::unique_ptr<const tcp::TlsContext> tls;
  if (options.key.has_value()) {
    REPRISE_ASSIGN_OR_RETURN(tls, tcp::TlsContext::ForCaller());
  }
  return std::unique_ptr<TcpLane>(new TcpLane(std::move(options), std::move(tls)));
}

bool TcpLane::Ready() {
  absl::MutexLock lock(&mu_);
  if (MonotonicClock().Now() < rests_until_) return false;
  if (reached_) return true;
  if (std::exchange(dialling_, true)) return false;
  // The one before has set dialling_ to false as the last thing that it does under the lock.
  if (dialler_.joinable()) dialler_.join();
  try {
    dialler_ = std::thread([this] { DialAhead(); });
  } catch (const std::system_error&) {  // no more threads: asked again with the next call
    dialling_ = false;
  }
  return false;
}

void TcpLane::DialAhead() {
  absl::StatusOr<tcp::DataSocket> socket = Dial(MonotonicDeadline::After(limits::kTcpDialTimeout));
  if (!socket.ok()) Note(socket.status());
  const bool reached = socket.ok();
  if (reached) connections_.Add(*std::move(socket));
  absl::MutexLock lock(&mu_);
  // Worth a call. Whether one goes well is another matter: only that ends the doubling.
  reached_ = reached_ || reached;
  dialling_ = false;
}

void TcpLane::Note(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (!IsLaneDown(status)) {
    // A call that got as far as the shard, whatever that said of it. One that ran out of its
    // caller's time says nothing.
    if (!absl::IsDeadlineExceeded(status)) {
      reached_ = true;
      rest_ = absl::ZeroDuration();
    }
    return;
  }
  reached_ = false;
  // Calls side by side that fail together are one failure.
  const absl::Time now = MonotonicClock().Now();
  if (now < rests_until_) return;
  rest_ = std::clamp(2 * rest_, limits::kTcpRetryMin, limits::kTcpRetryMax);
  rests_until_ = now + rest_;
}

absl::Status TcpLane::Read(const ReadJob& job, BlockSink& sink, absl::Time deadline) {
  absl::Status status;
  {
    Call call(*this, MonotonicDeadline(deadline));
    status = call.Start();
    if (status.ok()) status = call.Read(job, sink);
  }
  Note(status);
  return status;
}

absl::Status TcpLane::Write(const WriteJob& job, BlockSource& source, absl::Time deadline) {
  absl::Status status;
  {
    Call call(*this, MonotonicDeadline(deadline));
    status = call.Start();
    if (status.ok()) status = call.Write(job, source);
  }
  Note(status);
  return status;
}

std::optional<absl::StatusOr<std::string>> TcpLane::Ask(tcp::Verb verb, absl::string_view request,
                                                        absl::Time deadline) {
  if (request.size() > limits::kTcpVerbBytesMax || !Ready()) return std::nullopt;
  absl::StatusOr<std::string> answer;
  {
    Call call(*this, MonotonicDeadline(deadline));
    const std::optional<absl::Status> started = call.StartNow();
    if (!started.has_value()) return std::nullopt;
    answer = started->ok() ? call.Ask(verb, request) : *started;
  }
  Note(answer.status());
  // UNIMPLEMENTED: this port does not answer that, which says nothing of the shard.
  const absl::Status& status = answer.status();
  if (IsLaneDown(status) || absl::IsUnimplemented(status)) return std::nullopt;
  return answer;
}

absl::StatusOr<tcp::DataSocket> TcpLane::Dial(MonotonicDeadline deadline) const {
  const MonotonicDeadline soon = deadline.OrAfter(limits::kTcpDialTimeout);
  absl::StatusOr<Descriptor> connected = tcp::Dial(options_.host, options_.port, soon);
  absl::Status status = connected.status();
  if (status.ok()) {
    tcp::DataSocket socket(*std::move(connected));
    if (tls_ != nullptr) status = socket.ConnectTls(*tls_, *options_.key, soon);
    if (status.ok()) status = socket.Send(tcp::Hello{options_.attachment}, soon);
    if (status.ok()) {
      const absl::StatusOr<tcp::Outcome> welcome = socket.ReceiveOnly<tcp::Outcome>(soon);
      status = welcome.status();
      // Whoever listens there now does not know us. Whether the shard does, the next lane hears.
      if (welcome.ok() && !welcome->status.ok()) status = LaneDown(welcome->status.message());
    }
    if (status.ok()) return socket;
  }
  // A port that does not answer, be it only in time, is left alone; the caller's own deadline says
  // nothing of it.
  if (absl::IsDeadlineExceeded(status) && !deadline.over()) return LaneDown(status.message());
  return status;
}

}  // namespace reprise::lanes
