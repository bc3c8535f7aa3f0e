#include "service/telemetry/process_metrics.h"

#include <gtest/gtest.h>

#include <ctime>

namespace reprise::telemetry {
namespace {

TEST(ProcessMetrics, AProgramsNameDoesNotShiftTheFields) {
  const std::string fields =
      " S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 17 18 1000 2097152 512 0 0 0";
  for (const std::string name : {"(shard)", "(a b) S 9 (c)"}) {
    const ProcessUse use =
        ParseProcess("42 " + name + fields, "cpu 1 2\nbtime 1700000000\n", 100, 4096);
    EXPECT_DOUBLE_EQ(use.cpu_seconds, 4.0) << name;
    EXPECT_DOUBLE_EQ(use.start_time_seconds, 1700000010.0) << name;
    EXPECT_DOUBLE_EQ(use.virtual_bytes, 2097152.0) << name;
    EXPECT_DOUBLE_EQ(use.resident_bytes, 512 * 4096.0) << name;
  }
}

TEST(ProcessMetrics, WhatTheKernelDoesNotTellIsZero) {
  for (const char* text : {"", "42 (shard)", "42 (shard) S 1", "nonsense"}) {
    const ProcessUse use = ParseProcess(text, "", 100, 4096);
    EXPECT_EQ(use.cpu_seconds, 0) << text;
    EXPECT_EQ(use.resident_bytes, 0) << text;
  }
}

TEST(ProcessMetrics, ThisProcessHasMemoryFilesAndABeginning) {
  const ProcessUse use = ThisProcess();
  EXPECT_GT(use.resident_bytes, 1 << 20);
  EXPECT_GE(use.virtual_bytes, use.resident_bytes);
  EXPECT_GE(use.open_fds, 3);
  EXPECT_GE(use.max_fds, use.open_fds);
  EXPECT_GT(use.start_time_seconds, 1e9);
  // The kernel rounds both.
  EXPECT_LE(use.start_time_seconds, static_cast<double>(std::time(nullptr)) + 2);
}

}  // namespace
}  // namespace reprise::telemetry
