// One way of moving blocks over loopback, as the benchmark drives it.
//
// Thread safety: Get and Put of one caller are called from one thread; callers run in parallel.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace reprise::bench {

struct Shape {
  uint64_t block_bytes = 0;
  uint32_t blocks = 0;  // moved by one call
};

// What one connection does. Both fail the process when anything goes wrong.
class Caller {
 public:
  virtual ~Caller() = default;
  // Reads `shape.blocks` blocks into `to`, one after another.
  virtual void Get(const Shape& shape, std::span<uint8_t> to) = 0;
  // Writes them.
  virtual void Put(const Shape& shape, std::span<const uint8_t> from) = 0;
};

// A server and how to reach it.
class End {
 public:
  virtual ~End() = default;
  virtual const char* name() const = 0;
  virtual std::unique_ptr<Caller> Connect() = 0;
};

// All ends serve blocks out of one buffer and take them into another, both touched beforehand.
struct Slots {
  std::span<const uint8_t> stored;
  std::span<uint8_t> reserved;
};

std::unique_ptr<End> StreamLaneEnd(Slots slots);     // ours
std::unique_ptr<End> ProtobufBytesEnd(Slots slots);  // the same calls through generated code
std::unique_ptr<End> SocketEnd(Slots slots);         // a bare TCP socket: the limit

}  // namespace reprise::bench
