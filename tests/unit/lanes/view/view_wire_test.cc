#include "cluster/lanes/view/view_wire.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/types/limits.h"
#include "proto/types/refusal.h"

namespace reprise::lanes::view {
namespace {

std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

absl::StatusOr<Message> Decode(const std::string& frame) {
  if (frame.size() < kHeaderBytes) return absl::InvalidArgumentError("short");
  const auto header = DecodeHeader(AsBytes(frame).first<kHeaderBytes>());
  if (!header.ok()) return header.status();
  return DecodeBody(*header, AsBytes(frame).subspan(kHeaderBytes));
}

Extent AnExtentOf(MemoryKind memory) {
  Extent extent{.extent_bytes = 1 << 30};
  if (memory == MemoryKind::kHost) return extent;
  extent.device.emplace();
  extent.device->ipc.fill(0xAB);
  extent.device->device_uuid.fill(0xCD);
  return extent;
}

std::vector<Message> EveryMessage() {
  return {Hello{AttachmentId(0xfeedfacecafebeef)},
          OpenRead{LeaseId(7), 3, 65536, 4194304},
          OpenWrite{ReservationId(9), 272, {0, 5, 65535}},
          MapExtent{~0ull},
          Written{17},
          Done{},
          Places{Refusal(absl::StatusCode::kOutOfRange, "BLOCK", "block 4 is not leased"),
                 {{1, 2}, {3, 4, MemoryKind::kDevice}}},
          AnExtentOf(MemoryKind::kHost),
          Outcome{absl::NotFoundError("the lease is over")}};
}

TEST(ViewWireTest, EveryMessageComesBackAsItWas) {
  const std::vector<Message> messages = EveryMessage();
  ASSERT_EQ(messages.size(), std::variant_size_v<Message>);
  for (const Message& message : messages) {
    const std::string frame = Encode(message);
    const absl::StatusOr<Message> back = Decode(frame);
    ASSERT_TRUE(back.ok()) << message.index() << ": " << back.status();
    EXPECT_EQ(back->index(), message.index());
    EXPECT_EQ(Encode(*back), frame);
  }
}

TEST(ViewWireTest, AnEndWithoutANumberIsOfAllThatWasOpened) {
  for (const std::optional<uint32_t> blocks : {std::optional<uint32_t>(), {0u}, {65536u}}) {
    const absl::StatusOr<Message> back = Decode(Encode(Done{blocks}));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(std::get<Done>(*back).blocks, blocks);
  }
}

TEST(ViewWireTest, AStatusKeepsCodeReasonAndSentence) {
  const absl::Status status = Refusal(absl::StatusCode::kUnavailable, "LANE_DOWN", "gone");
  const absl::Status back = std::get<Outcome>(*Decode(Encode(Outcome{status}))).status;
  EXPECT_EQ(back.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RefusalReason(back), "LANE_DOWN");
  EXPECT_EQ(back.message(), "gone");
}

TEST(ViewWireTest, DeviceMemoryComesWithItsHandleAndHostMemoryWithNone) {
  const Extent device = AnExtentOf(MemoryKind::kDevice);
  EXPECT_EQ(std::get<Extent>(*Decode(Encode(device))).device, device.device);
  EXPECT_FALSE(std::get<Extent>(*Decode(Encode(AnExtentOf(MemoryKind::kHost)))).device);
  std::string frame = Encode(device);
  // A handle that is cut, one that is too long, and memory of no kind that we know.
  EXPECT_FALSE(Decode(frame.substr(0, frame.size() - 1)).ok());
  EXPECT_FALSE(Decode(frame + "x").ok());
  frame[frame.size() - 80 - 4] = '\2';
  EXPECT_FALSE(Decode(frame).ok());
  std::string places = Encode(Places{absl::OkStatus(), {{1, 2, MemoryKind::kDevice}}});
  ASSERT_TRUE(Decode(places).ok());
  places[places.size() - 4] = '\2';
  EXPECT_FALSE(Decode(places).ok());
}

TEST(ViewWireTest, ALongSentenceIsCut) {
  const Outcome outcome{absl::InternalError(std::string(1 << 20, 'x'))};
  EXPECT_EQ(std::get<Outcome>(*Decode(Encode(outcome))).status.message().size(),
            limits::kStatusTextBytesMax);
}

TEST(ViewWireTest, ABodyOfTheWrongLengthIsRefused) {
  for (const Message& message : EveryMessage()) {
    const std::string frame = Encode(message);
    for (size_t cut = kHeaderBytes; cut < frame.size(); ++cut) {
      EXPECT_FALSE(Decode(frame.substr(0, cut)).ok()) << message.index() << " cut at " << cut;
    }
    EXPECT_FALSE(Decode(frame + "x").ok()) << message.index();
  }
}

TEST(ViewWireTest, AHeaderThatPromisesTooMuchIsRefused) {
  std::string frame = Encode(Done{});
  const uint32_t bytes = limits::kViewMessageBytesMax + 1;
  frame.replace(8, 4, reinterpret_cast<const char*>(&bytes), 4);
  EXPECT_FALSE(DecodeHeader(AsBytes(frame).first<kHeaderBytes>()).ok());
  frame = Encode(Done{});
  frame[0] = 'X';
  EXPECT_FALSE(DecodeHeader(AsBytes(frame).first<kHeaderBytes>()).ok());
}

TEST(ViewWireTest, ACountThatDisagreesWithTheBodyIsRefused) {
  std::string frame = Encode(OpenWrite{ReservationId(9), 272, {0, 5}});
  frame[kHeaderBytes + 16] = '\x7f';
  EXPECT_FALSE(Decode(frame).ok());
}

// What is understood has one meaning.
TEST(ViewWireTest, RandomBodiesAreRefusedOrUnderstood) {
  std::mt19937 random(20261123);
  const std::vector<Message> seeds = EveryMessage();
  size_t understood = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::string frame = Encode(seeds[random() % seeds.size()]);
    for (int flips = static_cast<int>(random() % 4); flips > 0; --flips) {
      frame[random() % frame.size()] = static_cast<char>(random());
    }
    if (const auto back = Decode(frame); back.ok()) {
      ++understood;
      const std::string again = Encode(*back);
      EXPECT_EQ(Encode(*Decode(again)), again);
    }
  }
  EXPECT_GT(understood, 1000u);
}

}  // namespace
}  // namespace reprise::lanes::view
