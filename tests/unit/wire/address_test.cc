#include "proto/wire/address.h"

#include "gtest/gtest.h"

namespace reprise::wire {
namespace {

TEST(AddressTest, TheHostIsWhatIsBeforeThePort) {
  EXPECT_EQ(HostOf("127.0.0.1:7070"), "127.0.0.1");
  EXPECT_EQ(HostOf("shard-0.shards:0"), "shard-0.shards");
  EXPECT_EQ(HostOf("[::1]:7070"), "::1");
  EXPECT_EQ(HostOf("[::]:7070"), "::");
  EXPECT_EQ(HostOf(":7070"), "");
  EXPECT_EQ(HostOf("nothing"), "");
}

TEST(AddressTest, APeersAddressIsANumberOrNone) {
  EXPECT_EQ(HostOfPeer("ipv4:10.0.0.7:7070"), "10.0.0.7");
  EXPECT_EQ(HostOfPeer("ipv6:[fd00::7]:7070"), "fd00::7");
  EXPECT_EQ(HostOfPeer("ipv6:%5Bfd00::7%5D:7070"), "fd00::7");
  EXPECT_EQ(HostOfPeer("ipv6:%5bfe80::1%25eth0%5d:7070"), "fe80::1%eth0");
  EXPECT_EQ(HostOfPeer("unix:/run/shard.sock"), "");
  EXPECT_EQ(HostOfPeer(""), "");
}

}  // namespace
}  // namespace reprise::wire
