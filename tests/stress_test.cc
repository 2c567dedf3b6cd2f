// A guest that does its worst to its own kernel and memory, on one vCPU and on four.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/quiet_run.h"

namespace cube::testing {
namespace {

struct Subtest {
  const char* name;
  const char* rounds;  // where ring 0 is emulated, four vCPUs on two processors take their time
};

class Stress : public ::testing::TestWithParam<Subtest> {};

TEST_P(Stress, IsTheSameOnOneAndFourProcessors) {
  std::vector<std::string> command = {"/bin/stress", "-n", GetParam().rounds, GetParam().name};
  std::string one = RunQuietly({"--cpus", "1"}, command);
  EXPECT_EQ(one.rfind(std::string(GetParam().name) + " ok ", 0), 0u) << one;
  EXPECT_EQ(RunQuietly({"--cpus", "4"}, command), one);
}

INSTANTIATE_TEST_SUITE_P(
    All, Stress,
    ::testing::Values(Subtest{"model", "1500"}, Subtest{"models", "300"}, Subtest{"recycle", "3"},
                      Subtest{"large", "1"}, Subtest{"generations", "2"},
                      Subtest{"shootdown", "60"}, Subtest{"fork_writing", "20"},
                      Subtest{"freshness", "100"}, Subtest{"synchronisation", "50"},
                      Subtest{"clock", "200"}, Subtest{"exceptions", "3"}, Subtest{"steps", "1"},
                      Subtest{"syscall_stops", "1"}, Subtest{"poke", "20"},
                      Subtest{"nested_signals", "10"}, Subtest{"alternate_stacks", "20"},
                      Subtest{"interrupted", "20"}, Subtest{"events", "5"}, Subtest{"sockets", "2"},
                      Subtest{"server", "3"}, Subtest{"jobs", "3"}, Subtest{"raw_terminal", "2"},
                      Subtest{"token_ring", "30"}, Subtest{"aliases", "5"}, Subtest{"locks", "3"},
                      Subtest{"storm", "5"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(StressBoot, FiftyInARow) {
  for (int i = 0; i < 50 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(RunQuietly({"--cpus", i % 2 == 0 ? "1" : "4"}, {"/bin/echo", "up"}), "up\n");
  }
}

}  // namespace
}  // namespace cube::testing
