// One VM after another, as a node runs them all day: each works, and none leaves anything behind.
#include <gtest/gtest.h>

#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

TEST(Repeat, TwentyFiveRunsInARowSucceedAndLeaveNothingBehind) {
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  for (int i = 0; i < 25; ++i) {
    SCOPED_TRACE(i);
    Finished run = RunProcess(Vmm({}, {"/bin/echo", std::to_string(i)}));
    ASSERT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.out, std::to_string(i) + "\n");
    EXPECT_EQ(run.err, "");
    // After each, so that a failure names the run that left something.
    ASSERT_EQ(HostState::Count(Env("CUBE_VMM")), before);
  }
}

}  // namespace
}  // namespace cube::testing
