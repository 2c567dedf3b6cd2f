#include "guestkernel/agent/settle.h"

#include <stdlib.h>
#include <time.h>

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
  until.tv_sec += seconds;
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace cube::agent
