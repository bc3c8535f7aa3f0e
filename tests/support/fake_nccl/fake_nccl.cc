// A stand-in for libnccl.so.2 on machines without a GPU: two ranks, in one process or two, over an
// abstract Unix socket; "device memory" is host memory. A stream that was made known by
// RepriseFakeNcclAddStream is a FakeStream, and is busy while it has groups; of any other stream
// nothing is touched, and the communicator says ncclInProgress as long as a group goes on. Faults
// come from REPRISE_FAKE_NCCL in the environment or from RepriseFakeNcclSetFaults, as
// "name=value,...":
//
//   rank=R            only this rank misbehaves (default: both)
//   init=error|hang   ncclCommInitRankConfig fails; or never gets further than ncclInProgress
//   after=N           groups that go well before the next four (the warming one counts); default 0
//   group=hang        the group never gets further
//   group=enqueue     ncclGroupEnd itself never gets further than ncclInProgress
//   group=error       the group ends in ncclRemoteError
//   group=vanish      the rank closes its connection and says nothing
//   flip=1            one byte of every received group is wrong
//   abort_ms=T        ncclCommAbort takes that long
//   seed=S            draws one of all these by itself, for some group
//
// A peer that closes its connection is an ncclRemoteError at the other end, unless silent=1.
#include <nccl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fake_nccl/fake_stream.h"

namespace {

using reprise::testing::FakeStream;

constexpr int kVersion = 22809;
constexpr int kPollMs = 2;
constexpr std::chrono::milliseconds kIdlePoll(20);

struct Faults {
  std::string init, group;
  int rank = -1;
  int after = 0;
  int abort_ms = 0;
  bool flip = false;
  bool silent = false;
};

std::mutex g_mu;
std::string g_faults;       // guarded by g_mu
bool g_faults_set = false;  // guarded by g_mu
std::atomic<int> g_communicators{0};
std::set<void*> g_streams;  // that tell by themselves when they are idle; guarded by g_mu

bool IsFakeStream(void* stream) {
  std::lock_guard<std::mutex> lock(g_mu);
  return g_streams.count(stream) > 0;
}

std::string FaultText() {
  std::lock_guard<std::mutex> lock(g_mu);
  if (g_faults_set) return g_faults;
  const char* text = std::getenv("REPRISE_FAKE_NCCL");
  return text == nullptr ? "" : text;
}

void Draw(unsigned seed, Faults& faults) {
  std::mt19937 random(seed);
  static const char* const kGroups[] = {"hang", "enqueue", "error", "vanish"};
  faults.rank = static_cast<int>(random() % 2);
  faults.after = static_cast<int>(random() % 4);
  faults.abort_ms = random() % 3 == 0 ? 300 : 0;
  faults.silent = random() % 2 == 0;
  switch (random() % 6) {
    case 0:
      faults.init = random() % 2 == 0 ? "error" : "hang";
      break;
    case 1:
      faults.flip = true;
      break;
    default:
      faults.group = kGroups[random() % 4];
  }
}

Faults ReadFaults(int rank) {
  Faults faults;
  std::istringstream in(FaultText());
  std::string item;
  while (std::getline(in, item, ',')) {
    const size_t eq = item.find('=');
    if (eq == std::string::npos) continue;
    const std::string name = item.substr(0, eq), value = item.substr(eq + 1);
    if (name == "init") faults.init = value;
    if (name == "group") faults.group = value;
    if (name == "rank") faults.rank = std::atoi(value.c_str());
    if (name == "after") faults.after = std::atoi(value.c_str());
    if (name == "abort_ms") faults.abort_ms = std::atoi(value.c_str());
    if (name == "flip") faults.flip = value == "1";
    if (name == "silent") faults.silent = value == "1";
    if (name == "seed") Draw(static_cast<unsigned>(std::atoi(value.c_str())), faults);
  }
  const bool silent = faults.silent;
  if (faults.rank >= 0 && faults.rank != rank) faults = Faults();
  faults.silent = silent;
  return faults;
}

struct Op {
  bool send = false;
  uint8_t* data = nullptr;
  size_t bytes = 0;
};

struct Group {
  std::vector<Op> ops;
  FakeStream* stream = nullptr;  // nullptr: a stream that is not ours
};

sockaddr_un NameOf(const ncclUniqueId& id, socklen_t& length) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path + 1, id.internal, 40);
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 41);
  return name;
}

}  // namespace

// Everything happens on `thread`; callers queue groups and read `state`.
struct ncclComm {
  ncclUniqueId id;
  int rank = 0;
  Faults faults;
  std::atomic<int> state{ncclInProgress};
  std::atomic<int> untold{0};  // groups on streams that are not ours
  std::atomic<bool> stop{false};
  std::mutex mu;
  std::condition_variable changed;
  std::deque<Group> queue;  // guarded by mu
  int groups_done = 0;
  int socket = -1;
  std::thread thread;

  ~ncclComm() {
    if (socket >= 0) ::close(socket);
  }

  void Run() {
    if (faults.init == "hang") return WaitForStop();
    if (!Connect()) return;
    state = ncclSuccess;
    while (true) {
      Group group;
      {
        std::unique_lock<std::mutex> lock(mu);
        while (!changed.wait_for(lock, kIdlePoll, [this] { return stop || !queue.empty(); })) {
          if (PeerIsGone() && !faults.silent) state = ncclRemoteError;
        }
        if (stop) return;
        group = queue.front();
      }
      if (!RunGroup(group)) return;
      {
        std::lock_guard<std::mutex> lock(mu);
        queue.pop_front();
      }
      ++groups_done;
      if (group.stream != nullptr) {
        --group.stream->groups_in_flight;
      } else {
        --untold;
      }
    }
  }

  // Nothing comes while nobody sends, but the end of the connection does.
  bool PeerIsGone() const {
    char byte = 0;
    return ::recv(socket, &byte, 1, MSG_PEEK) == 0;
  }

  void WaitForStop() {
    std::unique_lock<std::mutex> lock(mu);
    changed.wait(lock, [this] { return stop.load(); });
  }

  bool Connect() {
    socklen_t length = 0;
    const sockaddr_un name = NameOf(id, length);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (rank == 0) {
      ::bind(fd, reinterpret_cast<const sockaddr*>(&name), length);
      ::listen(fd, 1);
      while (!stop && socket < 0) {
        pollfd waiting{fd, POLLIN, 0};
        ::poll(&waiting, 1, kPollMs);
        socket = ::accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      }
      ::close(fd);
      return socket >= 0;
    }
    while (!stop && ::connect(fd, reinterpret_cast<const sockaddr*>(&name), length) != 0) {
      ::poll(nullptr, 0, kPollMs);
    }
    socket = fd;
    return !stop;
  }

  // False when the rank is done for.
  bool RunGroup(const Group& group) {
    if (!faults.group.empty() && groups_done >= faults.after) {
      if (faults.group == "vanish") {
        ::shutdown(socket, SHUT_RDWR);
        ::close(socket);
        socket = -1;
      }
      if (faults.group == "error") state = ncclRemoteError;
      if (faults.group == "enqueue") state = ncclInProgress;
      WaitForStop();
      return false;
    }
    std::vector<Op> sends, receives;
    for (const Op& op : group.ops) (op.send ? sends : receives).push_back(op);
    if (!Move(sends, receives)) {
      if (!stop && !faults.silent) state = ncclRemoteError;
      WaitForStop();
      return false;
    }
    if (faults.flip && groups_done >= faults.after && !receives.empty() && receives[0].bytes > 0) {
      receives[0].data[receives[0].bytes / 2] ^= 0x40;
    }
    return true;
  }

  // Both directions at once; false when the peer is gone or the rank is stopped.
  bool Move(std::vector<Op>& sends, std::vector<Op>& receives) {
    size_t s = 0, r = 0, sent = 0, received = 0;
    while (s < sends.size() || r < receives.size()) {
      if (stop) return false;
      pollfd waiting{socket, 0, 0};
      if (s < sends.size()) waiting.events |= POLLOUT;
      if (r < receives.size()) waiting.events |= POLLIN;
      ::poll(&waiting, 1, kPollMs);
      if (s < sends.size()) {
        const ssize_t n = ::send(socket, sends[s].data + sent, sends[s].bytes - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (n > 0) sent += static_cast<size_t>(n);
        if (sent == sends[s].bytes) ++s, sent = 0;
      }
      if (r < receives.size()) {
        const ssize_t n =
            ::recv(socket, receives[r].data + received, receives[r].bytes - received, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n > 0) received += static_cast<size_t>(n);
        if (received == receives[r].bytes) ++r, received = 0;
      }
    }
    return true;
  }
};

namespace {

// ncclGroupStart to ncclGroupEnd of one thread.
thread_local std::map<std::pair<ncclComm*, void*>, std::vector<Op>> g_group;

ncclResult_t AddOp(ncclComm_t comm, cudaStream_t stream, Op op) {
  g_group[{comm, static_cast<void*>(stream)}].push_back(op);
  return ncclSuccess;
}

}  // namespace

extern "C" {

void RepriseFakeNcclSetFaults(const char* faults) {
  std::lock_guard<std::mutex> lock(g_mu);
  g_faults = faults;
  g_faults_set = true;
}

void RepriseFakeNcclAddStream(void* stream) {
  std::lock_guard<std::mutex> lock(g_mu);
  g_streams.insert(stream);
}

void RepriseFakeNcclDropStream(void* stream) {
  std::lock_guard<std::mutex> lock(g_mu);
  g_streams.erase(stream);
}

int RepriseFakeNcclCommunicators() {
  return g_communicators;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = kVersion;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static const char kHex[] = "0123456789abcdef";
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id->internal, "fakenccl", 8);
  uint8_t random[16];
  if (::getrandom(random, sizeof(random), 0) != sizeof(random)) return ncclSystemError;
  for (size_t i = 0; i < sizeof(random); ++i) {
    id->internal[8 + 2 * i] = kHex[random[i] >> 4];
    id->internal[9 + 2 * i] = kHex[random[i] & 15];
  }
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (ranks != 2 || config == nullptr || config->blocking != 0) return ncclInvalidArgument;
  auto made = std::make_unique<ncclComm>();
  made->id = id;
  made->rank = rank;
  made->faults = ReadFaults(rank);
  if (made->faults.init == "error") return ncclSystemError;
  *comm = made.release();
  ++g_communicators;
  (*comm)->thread = std::thread([comm = *comm] { comm->Run(); });
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = static_cast<ncclResult_t>(comm->state.load());
  if (*state == ncclSuccess && comm->untold > 0) *state = ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm->faults.abort_ms > 0) ::poll(nullptr, 0, comm->faults.abort_ms);
  {
    std::lock_guard<std::mutex> lock(comm->mu);
    comm->stop = true;
  }
  comm->changed.notify_all();
  comm->thread.join();
  for (const Group& group : comm->queue) {
    if (group.stream != nullptr) --group.stream->groups_in_flight;
  }
  delete comm;
  --g_communicators;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclUint8 || peer != 1 - comm->rank) return ncclInvalidArgument;
  return AddOp(comm, stream, {true, static_cast<uint8_t*>(const_cast<void*>(data)), count});
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (type != ncclUint8 || peer != 1 - comm->rank) return ncclInvalidArgument;
  return AddOp(comm, stream, {false, static_cast<uint8_t*>(data), count});
}

ncclResult_t ncclGroupEnd() {
  for (auto& [key, ops] : g_group) {
    ncclComm* const comm = key.first;
    FakeStream* const stream =
        IsFakeStream(key.second) ? static_cast<FakeStream*>(key.second) : nullptr;
    if (stream != nullptr) {
      ++stream->groups_in_flight;
    } else {
      ++comm->untold;
    }
    {
      std::lock_guard<std::mutex> lock(comm->mu);
      comm->queue.push_back({std::move(ops), stream});
    }
    comm->changed.notify_all();
  }
  g_group.clear();
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error"
                                   : "fake error";
}

}  // extern "C"
