#include "vmm/cli/memory_trimmer.h"

#include <sys/epoll.h>

#include <algorithm>

#include "base/program_pages.h"

namespace cube::vmm {
namespace {

// A guest that has made fewer exits than this since the last look is idle. Looks are a second apart
// at first, and rarer the longer it stays idle.
constexpr uint64_t kIdleExits = 200;
constexpr uint64_t kFirstSeconds = 1;
constexpr uint64_t kLastSeconds = 64;
constexpr uint64_t kSecond = 1'000'000'000;
// Time for devices and requests between two stretches of that work.
constexpr uint64_t kBetweenCollapses = 10'000'000;

}  // namespace

Status MemoryTrimmer::Watch(EventLoop* loop) {
  CUBE_ASSIGN(timer_, Timer::Create());
  CUBE_TRY(loop->Add(timer_->fd(), EPOLLIN, [this](uint32_t) { Look(); }));
  seconds_ = kFirstSeconds;
  Arm(seconds_ * kSecond);
  return OkStatus();
}

void MemoryTrimmer::Look() {
  timer_->Acknowledge();
  uint64_t exits = machine_()->exits();
  bool idle = exits - exits_ < kIdleExits;
  exits_ = exits;
  if (idle && collapse_()) {
    Arm(kBetweenCollapses);
    return;
  }
  seconds_ = idle ? std::min(2 * seconds_, kLastSeconds) : kFirstSeconds;
  Arm(seconds_ * kSecond);
  // Last, so that no code comes back that only this needs.
  if (idle) Trim();
}

// A timer that cannot be set costs memory, nothing else.
void MemoryTrimmer::Arm(uint64_t nanoseconds) { (void)timer_->Set(nanoseconds); }

void MemoryTrimmer::Trim() {
  machine_()->TrimMemory();
  ReleaseProgramPages();
}

}  // namespace cube::vmm
