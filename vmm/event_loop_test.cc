#include "vmm/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <thread>

namespace cube::vmm {
namespace {

TEST(EventLoop, CallsHandlersUntilStoppedFromAnotherThread) {
  EventLoop loop = EventLoop::Create().value();
  UniqueFd event = NewEventFd().value();
  int calls = 0;
  ASSERT_TRUE(loop.Add(event.get(), EPOLLIN, [&](uint32_t) {
                    DrainEventFd(event.get());
                    ++calls;
                    loop.Stop();
                  }).ok());
  std::thread other([&] { SignalEventFd(event.get()); });
  ASSERT_TRUE(loop.Run().ok());
  other.join();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, AHandlerMayRemoveItselfAndOthers) {
  EventLoop loop = EventLoop::Create().value();
  UniqueFd first = NewEventFd().value(), second = NewEventFd().value();
  int calls = 0;
  auto handler = [&](uint32_t) {
    ++calls;
    loop.Remove(first.get());
    loop.Remove(second.get());
    loop.Stop();
  };
  ASSERT_TRUE(loop.Add(first.get(), EPOLLIN, handler).ok());
  ASSERT_TRUE(loop.Add(second.get(), EPOLLIN, handler).ok());
  SignalEventFd(first.get());
  SignalEventFd(second.get());
  ASSERT_TRUE(loop.Run().ok());
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ARegularFileIsRefused) {
  EventLoop loop = EventLoop::Create().value();
  char path[] = "/tmp/cube-event-loop-XXXXXX";
  UniqueFd file(mkstemp(path));
  unlink(path);
  EXPECT_FALSE(loop.Add(file.get(), EPOLLIN, [](uint32_t) {}).ok());
}

TEST(Timer, FiresOnce) {
  EventLoop loop = EventLoop::Create().value();
  Timer timer = Timer::Create().value();
  int calls = 0;
  ASSERT_TRUE(loop.Add(timer.fd(), EPOLLIN, [&](uint32_t) {
                    ++calls;
                    timer.Acknowledge();
                    loop.Stop();
                  }).ok());
  ASSERT_TRUE(timer.Set(1000).ok());
  ASSERT_TRUE(loop.Run().ok());
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace cube::vmm
