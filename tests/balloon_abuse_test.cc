// Guests that give back memory which they use (tests/guest/balloon_abuse.cc): the harm is theirs.
#include <gtest/gtest.h>

#include <string>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// The statuses by which cube-vmm itself says that a guest did not end well (run_options.h).
constexpr int kTimeout = 124, kVmmError = 125;

// Enough for a guest to die; one that is left spinning is ended after this.
constexpr char kSeconds[] = "20";

TEST(BalloonAbuse, APageInUseHoldsZerosAndGoesOn) {
  Finished run = RunProcess(Vmm({"--timeout", "120"}, {"/bin/balloon_abuse", "own"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "reported 1 zeros 4096\ninflated 1 zeros 4096\nused on 1\n");
}

// A buffer that is no memory breaks the queue; a page number that is no memory is left out.
TEST(BalloonAbuse, WhatIsNoMemoryIsRefused) {
  Finished run = RunProcess(Vmm({"--timeout", "120"}, {"/bin/balloon_abuse", "wild"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "000000 1\n");
}

class WholeMemory : public ::testing::TestWithParam<const char*> {};

// Kernel, page tables and program of the one become zeros while they run. Its VMM says how it
// ended, in its own words, and the guest beside it does not notice.
TEST_P(WholeMemory, EndsOnlyTheGuestWhoseItIs) {
  Process neighbour(
      Vmm({"--timeout", "300"}, {"/bin/sh", "-c",
                                 "dd if=/dev/urandom of=/tmp/a bs=65536 count=64 2>/dev/null;"
                                 "cp /tmp/a /tmp/b; echo ready; read line;"
                                 "cmp /tmp/a /tmp/b && ls / >/tmp/c && echo same"}));
  ASSERT_EQ(neighbour.WaitForOutput(), "ready\n");
  for (const char* cpus : {"1", "2"}) {
    Finished run = RunProcess(
        Vmm({"--timeout", kSeconds, "--cpus", cpus}, {"/bin/balloon_abuse", GetParam()}));
    EXPECT_EQ(run.out, "going\n") << cpus;
    EXPECT_TRUE(run.status == kTimeout || run.status == kVmmError) << run.status << run.err;
    EXPECT_TRUE(run.err.starts_with("cube-vmm: ")) << run.err;
  }
  Finished other = neighbour.Finish("go\n");
  EXPECT_EQ(other.status, 0) << other.err;
  EXPECT_EQ(other.out, "same\n");
}

INSTANTIATE_TEST_SUITE_P(BalloonAbuse, WholeMemory, ::testing::Values("report", "inflate"));

}  // namespace
}  // namespace cube::testing
