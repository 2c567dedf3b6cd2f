// Notifications between driver and device, of which none may be lost.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// Sum over the processors, of the virtio device with the most: the entropy device.
long MostInterrupts(const std::string& lines) {
  long most = 0;
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line.substr(line.find(':') + 1));
    long sum = 0;
    for (long count; words >> count;) sum += count;
    most = std::max(most, sum);
  }
  return most;
}

class Notifications : public ::testing::TestWithParam<const char*> {};

// Linux's entropy driver has one request under way, kicks for it, and sleeps until the interrupt:
// where one of either is lost, this ends at the time limit.
TEST_P(Notifications, EachRequestIsSeenAndEachAnswerToo) {
  constexpr int kRequests = 2000;
  Finished run =
      RunProcess(Vmm({"--cpus", GetParam(), "--timeout", "600"},
                     {"/bin/sh", "-c",
                      "dd if=/dev/hwrng of=/dev/null bs=64 count=" + std::to_string(kRequests) +
                          " 2>/dev/null && grep virtio /proc/interrupts"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_GE(MostInterrupts(run.out), kRequests) << run.out;
}

INSTANTIATE_TEST_SUITE_P(Cpus, Notifications, ::testing::Values("1", "2", "4"));

}  // namespace
}  // namespace cube::testing
