// Cgroups of version 2, which the host that the tests run on may not have: in a guest that has.
#include <gtest/gtest.h>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

TEST(Cgroups, Version2) {
  Finished run = RunProcess(Vmm({"--memory", "256"}, {"/bin/cgroups"}));
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.out, "as they should be\n");
  EXPECT_EQ(run.err, "");
}

}  // namespace
}  // namespace cube::testing
