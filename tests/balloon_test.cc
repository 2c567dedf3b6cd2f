// Memory given back by guests that do not need it, as the host sees it.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// The process's own memory, KiB: pages that nothing else maps, the guest's among them.
long AnonymousKib(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    long value = 0;
    if (word == "Anonymous:" && file >> value) return value;
  }
  return -1;
}

// A program that has used 64 MiB and given them back to its kernel, and one that goes on living:
// what the host lends the guest falls again, by itself.
TEST(Balloon, AnIdleGuestShrinks) {
  Process process(
      Vmm({"--memory", "256"}, {"/bin/sh", "-c",
                                "dd if=/dev/zero of=/tmp/block bs=65536 count=1024 2>/dev/null;"
                                "echo full; read line; rm /tmp/block; echo empty; read line"}));
  ASSERT_EQ(process.WaitForOutput(), "full\n");
  long full = AnonymousKib(process.pid());
  ASSERT_GT(full, 64 * 1024);
  process.Send("go\n");
  ASSERT_EQ(process.WaitForOutput(), "empty\n");
  // Linux reports free blocks of 4 MiB two seconds after there are some. Wait for what is to come, as
  // long as a test may take; what is left in smaller pieces it does not report.
  long least = full;
  while (least > full - 24 * 1024) {
    std::this_thread::yield();
    least = AnonymousKib(process.pid());
    ASSERT_GE(least, 0) << "the VM has ended";
  }
  RecordProperty("full_kib", static_cast<int>(full));
  RecordProperty("shrunk_kib", static_cast<int>(least));
  Finished run = process.Finish("go\n");
  EXPECT_EQ(run.status, 0) << run.err;
}

}  // namespace
}  // namespace cube::testing
