#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/memory_budget.h"

namespace cube::agent {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    reader.Reset(fds[0]);
    writer.Reset(fds[1]);
  }
  UniqueFd reader;
  UniqueFd writer;
};

class LoopTest : public ::testing::Test {
 protected:
  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
};

TEST_F(LoopTest, TimersRunInTheirOrderAndCancelledOnesDoNot) {
  std::string order;
  loop_->After(3'000'000, [&] { order += 'c'; });
  loop_->After(3'000'000, [&] {
    order += 'd';
    loop_->Stop();
  });
  loop_->After(1'000'000, [&] { order += 'a'; });
  EventLoop::TimerId never = loop_->After(2'000'000, [&] { order += 'x'; });
  loop_->After(2'000'000, [&] { order += 'b'; });
  loop_->Cancel(never);
  loop_->Cancel(never);
  loop_->Cancel(EventLoop::kNoTimer);
  ASSERT_TRUE(loop_->Run().ok());
  EXPECT_EQ(order, "abcd");
}

TEST_F(LoopTest, ARunMayHaveATimeLimit) {
  Status late = loop_->RunFor(1'000'000, "waiting for nobody");
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().message(), "waiting for nobody: not done within 0 s");
  loop_->Defer([&] { loop_->Stop(); });
  EXPECT_TRUE(loop_->RunFor(60'000'000'000, "nothing").ok());
}

TEST(MemoryBudget, IsSharedAndGivenBack) {
  MemoryBudget budget(1000);
  MemoryBudget::Lease first(&budget);
  EXPECT_TRUE(first.Keep(400));
  EXPECT_FALSE(budget.tight());
  {
    MemoryBudget::Lease second(&budget);
    EXPECT_TRUE(second.Keep(500));
    EXPECT_TRUE(budget.tight());
    EXPECT_FALSE(second.Keep(601));
    EXPECT_TRUE(second.Keep(600));
    EXPECT_FALSE(first.Keep(401));
    EXPECT_NE(budget.Refusal().find("1000 bytes of the 1000"), std::string::npos);
    EXPECT_TRUE(second.Keep(100));  // less is always possible
    MemoryBudget::Lease third = std::move(second);
    EXPECT_TRUE(first.Keep(900));
    first.Count(5000);  // what has been made already
    EXPECT_FALSE(third.Keep(101));
    EXPECT_TRUE(third.Keep(100));
  }
  first.Count(0);
  EXPECT_TRUE(first.Keep(1000));
  EXPECT_GE(MemoryBudget::LimitOfMachine(), size_t{16} << 20);
  MemoryBudget::Lease none;
  EXPECT_TRUE(none.Keep(1 << 30));
}

TEST_F(LoopTest, WhatATaskDefersComesAfterTheNextEvents) {
  Pipe pipe;
  std::string order;
  ASSERT_TRUE(
      loop_->Add(pipe.reader.get(), EPOLLIN | EPOLLET, [&](uint32_t) { order += 'e'; }).ok());
  ASSERT_EQ(write(pipe.writer.get(), "x", 1), 1);
  loop_->Defer([&] {
    order += '1';
    loop_->Defer([&] {
      order += '2';
      loop_->Stop();
    });
  });
  ASSERT_TRUE(loop_->Run().ok());
  EXPECT_EQ(order, "1e2");
}

TEST_F(LoopTest, EventsOfAClosedDescriptorDoNotReachTheNextOfItsNumber) {
  Pipe first;
  Pipe second;
  std::vector<std::string> news;
  int number = second.reader.get();
  auto reopen = [&] {
    loop_->Remove(number);
    second.reader.Reset();
    Pipe third;
    ASSERT_EQ(dup2(third.reader.get(), number), number);
    ASSERT_TRUE(loop_->Add(number, EPOLLIN, [&](uint32_t) { news.push_back("third"); }).ok());
  };
  // Both are ready in one turn; whichever comes first replaces the other.
  ASSERT_TRUE(loop_
                  ->Add(first.reader.get(), EPOLLIN | EPOLLET,
                        [&](uint32_t) {
                          news.push_back("first");
                          reopen();
                          loop_->Remove(number);
                          close(number);
                          loop_->Stop();
                        })
                  .ok());
  ASSERT_TRUE(
      loop_->Add(number, EPOLLIN | EPOLLET, [&](uint32_t) { news.push_back("second"); }).ok());
  ASSERT_EQ(write(first.writer.get(), "x", 1), 1);
  ASSERT_EQ(write(second.writer.get(), "x", 1), 1);
  ASSERT_TRUE(loop_->Run().ok());
  EXPECT_EQ(news, std::vector<std::string>{"first"});
}

TEST_F(LoopTest, AHandlerMayRemoveItselfAndGoOn) {
  Pipe pipe;
  std::string text = "captured by the handler, in memory of its own";
  std::string seen;
  ASSERT_TRUE(loop_
                  ->Add(pipe.reader.get(), EPOLLIN,
                        [&, text](uint32_t) {
                          loop_->Remove(pipe.reader.get());
                          pipe.reader.Reset();
                          seen = text;
                          loop_->Stop();
                        })
                  .ok());
  ASSERT_EQ(write(pipe.writer.get(), "x", 1), 1);
  ASSERT_TRUE(loop_->Run().ok());
  EXPECT_EQ(seen, text);
}

TEST_F(LoopTest, ASleeperWithWorkKeepsTheLoopAwake) {
  struct Busy : EventLoop::Sleeper {
    explicit Busy(EventLoop* loop) : loop(loop) {}
    bool BeforeSleep() override {
      if (++turns == 3) loop->Stop();
      return false;
    }
    void AfterSleep() override { ++woken; }
    EventLoop* loop;
    int turns = 0;
    int woken = 0;
  } busy(loop_.get());
  loop_->SetSleeper(&busy);
  ASSERT_TRUE(loop_->Run().ok());
  EXPECT_EQ(busy.turns, 3);
  EXPECT_EQ(busy.woken, 2);
}

TEST_F(LoopTest, EveryChildIsReapedAndTheWatchedAreReported) {
  std::unique_ptr<ChildReaper> reaper = ChildReaper::Create(loop_.get()).value();
  std::vector<int> statuses;
  auto start = [](int status) {
    pid_t pid = fork();
    if (pid == 0) _exit(status);
    return pid;
  };
  start(1);  // nobody's
  pid_t forgotten = start(2);
  reaper->Watch(forgotten, [&](int) { FAIL(); });
  reaper->Forget(forgotten);
  for (int i = 3; i < 6; ++i) {
    reaper->Watch(start(i), [&](int status) {
      statuses.push_back(WEXITSTATUS(status));
      if (statuses.size() == 3) loop_->Stop();
    });
  }
  ASSERT_TRUE(loop_->Run().ok());
  std::sort(statuses.begin(), statuses.end());
  EXPECT_EQ(statuses, (std::vector<int>{3, 4, 5}));
}

}  // namespace
}  // namespace cube::agent
