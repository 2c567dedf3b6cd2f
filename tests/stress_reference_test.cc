// The guest stress with KVM's emulator in ring 0 as well: the engine's results must be its results.
// $CUBE_STRESS_REFERENCE is "short" or "all".
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/quiet_run.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

struct Subtest {
  const char* name;
  const char* rounds;
};

class StressReference : public ::testing::TestWithParam<Subtest> {};

TEST_P(StressReference, KvmsEmulatorAgrees) {
  std::vector<std::string> command = {"/bin/stress", "-n", GetParam().rounds, GetParam().name};
  std::string engine = RunQuietly({"--ring0", "engine"}, command);
  EXPECT_EQ(engine.rfind(std::string(GetParam().name) + " ok ", 0), 0u) << engine;
  EXPECT_EQ(RunQuietly({"--ring0", "kvm"}, command, 1200), engine);
}

// A system call takes KVM's emulator a millisecond, a fork a quarter of a second.
std::vector<Subtest> Subtests() {
  if (Env("CUBE_STRESS_REFERENCE") == "short") return {{"model", "30"}, {"nested_signals", "1"}};
  return {{"model", "60"},
          {"models", "10"},
          {"recycle", "1"},
          {"large", "1"},
          {"generations", "1"},
          {"shootdown", "10"},
          {"fork_writing", "5"},
          {"freshness", "20"},
          {"synchronisation", "10"},
          {"clock", "20"},
          {"exceptions", "1"},
          {"steps", "1"},
          {"syscall_stops", "1"},
          {"poke", "5"},
          {"nested_signals", "3"},
          {"alternate_stacks", "5"},
          {"interrupted", "1"},
          {"events", "1"},
          {"sockets", "1"},
          {"server", "1"},
          {"jobs", "1"},
          {"raw_terminal", "1"},
          {"token_ring", "5"},
          {"aliases", "2"},
          {"locks", "1"},
          {"storm", "1"}};
}

INSTANTIATE_TEST_SUITE_P(All, StressReference, ::testing::ValuesIn(Subtests()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cube::testing
