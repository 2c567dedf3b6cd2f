// A guest that does its worst to its own kernel and memory, on one vCPU and on four.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// Runs `command` and checks that the guest kernel had no complaint. Returns what it printed.
std::string RunQuietly(std::vector<std::string> options, const std::vector<std::string>& command) {
  std::string console = Env("TEST_TMPDIR") + "/console";
  options.insert(options.end(), {"--console", console, "--append", "loglevel=7", "--timeout", "90"});
  Finished run = RunProcess(Vmm(options, command));
  EXPECT_EQ(run.status, 0) << run.out << run.err;
  EXPECT_EQ(run.err, "");
  std::stringstream text;
  text << std::ifstream(console).rdbuf();
  for (const char* complaint : {"BUG", "Oops", "segfault", "panic:", "soft lockup", "RCU stall",
                                "rcu_sched", "double fault", "Call Trace"}) {
    EXPECT_EQ(text.str().find(complaint), std::string::npos) << complaint << "\n" << text.str();
  }
  return run.out;
}

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
                      Subtest{"syscall_stops", "1"}, Subtest{"poke", "20"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(StressBoot, FiftyInARow) {
  for (int i = 0; i < 50 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(RunQuietly({"--cpus", i % 2 == 0 ? "1" : "4"}, {"/bin/echo", "up"}), "up\n");
  }
}

TEST(StressReference, KvmsEmulatorAgrees) {
  std::vector<std::string> command = {"/bin/stress", "-n", "30", "model"};
  EXPECT_EQ(RunQuietly({"--ring0", "kvm"}, command), RunQuietly({}, command));
}

}  // namespace
}  // namespace cube::testing
