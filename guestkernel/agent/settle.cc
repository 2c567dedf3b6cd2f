#include "guestkernel/agent/settle.h"

#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>

#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

constexpr const char* kName = "cube_settle";
constexpr uint32_t kMostSeconds = 600;
// Linux puts off what can wait (its slab reaper, every other second) until a tick finds the
// processor awake, and no tick comes to one that sleeps. So it is awake now and then, for more than
// a tick of 10 ms: each time the reaper takes a fifth of what the caches hold in reserve.
constexpr time_t kStepSeconds = 3;
constexpr int64_t kAwakeNanoseconds = 25'000'000;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void SleepUntil(const timespec& until) {
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace

void Settle(Doorbell* doorbell) {
  const char* word = getenv(kName);
  if (word == nullptr) return;
  std::string_view text = word;
  uint32_t seconds = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 1 ||
      seconds > kMostSeconds) {
    Log(Format("%s=%s is not a number of seconds from 1 to %u", kName, word, kMostSeconds));
    return;
  }
  doorbell->Send(abi::Command::kSettle, seconds);
  timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  for (time_t left = seconds; left > 0; left -= kStepSeconds) {
    until.tv_sec += std::min(left, kStepSeconds);
    SleepUntil(until);
    for (int64_t asleep = Now() + kAwakeNanoseconds; Now() < asleep;) {
    }
  }
}

}  // namespace cube::agent
