#include "service/shard/admission.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "proto/types/refusal.h"

namespace reprise::shard {
namespace {

constexpr AdmissionLimits kSmall = {.calls_max = 4,
                                    .write_calls_max = 2,
                                    .streams_max = 3,
                                    .write_streams_max = 2,
                                    .tcp_calls_max = 3,
                                    .tcp_writes_max = 2};

TEST(AdmissionTest, WhatFitsIsAdmittedAndTheNextIsRefusedWithAReason) {
  const std::shared_ptr<Admission> admission = Admission::Create(kSmall);
  std::vector<Admission::Ticket> tickets;
  for (size_t i = 0; i < kSmall.calls_max; ++i) {
    tickets.push_back(*admission->Admit(WorkKind::kReadCall));
  }
  const absl::Status refused = admission->Admit(WorkKind::kReadCall).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RefusalReason(refused), "OVERLOAD");
  EXPECT_EQ(admission->in_flight(), 4u);
  EXPECT_EQ(admission->refused(), 1u);
  tickets.pop_back();
  EXPECT_TRUE(admission->Admit(WorkKind::kReadCall).ok());
}

TEST(AdmissionTest, WritesAreRefusedWhileReadsAreStillAdmitted) {
  for (const auto& [read, write, writes_max] :
       {std::tuple(WorkKind::kReadCall, WorkKind::kWriteCall, kSmall.write_calls_max),
        std::tuple(WorkKind::kReadStream, WorkKind::kWriteStream, kSmall.write_streams_max),
        std::tuple(WorkKind::kTcpRead, WorkKind::kTcpWrite, kSmall.tcp_writes_max)}) {
    const std::shared_ptr<Admission> admission = Admission::Create(kSmall);
    std::vector<Admission::Ticket> tickets;
    for (size_t i = 0; i < writes_max; ++i) tickets.push_back(*admission->Admit(read));
    EXPECT_FALSE(admission->Admit(write).ok());
    EXPECT_TRUE(admission->Admit(read).ok());
    // As little when writes take it all.
    tickets.clear();
    for (size_t i = 0; i < writes_max; ++i) tickets.push_back(*admission->Admit(write));
    EXPECT_FALSE(admission->Admit(write).ok());
  }
}

TEST(AdmissionTest, StreamsAndCallsHaveBudgetsOfTheirOwn) {
  const std::shared_ptr<Admission> admission = Admission::Create(kSmall);
  std::vector<Admission::Ticket> tickets;
  for (size_t i = 0; i < kSmall.streams_max; ++i) {
    tickets.push_back(*admission->Admit(WorkKind::kReadStream));
  }
  EXPECT_FALSE(admission->Admit(WorkKind::kReadStream).ok());
  EXPECT_TRUE(admission->Admit(WorkKind::kReadCall).ok());
  EXPECT_TRUE(admission->Admit(WorkKind::kTcpRead).ok());
}

TEST(AdmissionTest, WhoIsPatientGetsTheNextTicketThatComesBack) {
  AdmissionLimits one = kSmall;
  one.disk_reads_max = 1;
  const std::shared_ptr<Admission> admission = Admission::Create(one);
  std::optional<Admission::Ticket> ticket = *admission->Admit(WorkKind::kDiskRead);
  EXPECT_FALSE(admission->Admit(WorkKind::kDiskRead, absl::Milliseconds(5)).ok());
  absl::Notification begun;
  std::thread patient([&] {
    begun.Notify();
    EXPECT_TRUE(admission->Admit(WorkKind::kDiskRead, absl::InfiniteDuration()).ok());
  });
  begun.WaitForNotification();
  absl::SleepFor(absl::Milliseconds(20));  // so that it waits, as it does without patience not
  ticket.reset();
  patient.join();
  EXPECT_EQ(admission->refused(), 1u);
}

TEST(AdmissionTest, ReadsOfADiskLeaveRoomForTheRest) {
  AdmissionLimits small = kSmall;
  small.disk_reads_max = 2;
  const std::shared_ptr<Admission> admission = Admission::Create(small);
  std::vector<Admission::Ticket> tickets;
  for (size_t i = 0; i < small.disk_reads_max; ++i) {
    tickets.push_back(*admission->Admit(WorkKind::kReadStream));
    tickets.push_back(*admission->Admit(WorkKind::kDiskRead));
  }
  EXPECT_FALSE(admission->Admit(WorkKind::kDiskRead).ok());
  EXPECT_TRUE(admission->Admit(WorkKind::kReadStream).ok());
  EXPECT_LT(limits::kDiskReadsMax, limits::kWriteStreamsMax);
}

TEST(AdmissionTest, ACopyOfATicketKeepsTheWorkInFlight) {
  const std::shared_ptr<Admission> admission = Admission::Create(kSmall);
  Admission::Ticket ticket = *admission->Admit(WorkKind::kReadCall);
  Admission::Ticket copy = ticket;
  ticket.reset();
  EXPECT_EQ(admission->in_flight(), 1u);
  EXPECT_FALSE(admission->AwaitIdle(absl::ZeroDuration()));
  copy.reset();
  EXPECT_TRUE(admission->AwaitIdle(absl::ZeroDuration()));
}

TEST(AdmissionTest, ATicketMayOutliveItsOwnersReference) {
  std::shared_ptr<Admission> admission = Admission::Create(kSmall);
  Admission::Ticket ticket = *admission->Admit(WorkKind::kReadCall);
  const std::weak_ptr<Admission> watch = admission;
  admission.reset();
  EXPECT_FALSE(watch.expired());
  ticket.reset();
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace reprise::shard
