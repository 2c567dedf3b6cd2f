// Python's own regression tests, run in a guest: $CUBE_PYTHON_LIST of tests/guest/python.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/quiet_run.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

TEST(Python, RegressionTestsFailOnlyAsListed) {
  std::string out =
      RunQuietly({"--memory", "1024", "--cpus", "2"},
                 {"/usr/bin/python3", "/python/run_modules.py", "--times", "--known",
                  "/python/known_failures.txt", "--list", "/python/" + Env("CUBE_PYTHON_LIST")},
                 std::stoi(Env("CUBE_PYTHON_SECONDS")));
  printf("%s", out.c_str());
  EXPECT_NE(out.find(", all as listed\n"), std::string::npos);
}

}  // namespace
}  // namespace cube::testing
