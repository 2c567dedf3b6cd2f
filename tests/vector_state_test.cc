// The vector registers of processes in a guest: KVM or the assist layer saves and restores them.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

void RunVectorState(const std::string& cpus, int wanted_rounds) {
  Finished run = RunProcess(
      Vmm({"--cpus", cpus}, {"/bin/vector_state", std::to_string(wanted_rounds)}));
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.err, "");
  char level[4] = "";
  int workers = 0, rounds = 0, differences = -1;
  long switches = 0;
  unsigned signals = 0;
  ASSERT_EQ(sscanf(run.out.c_str(),
                   "level %3s, %d workers, %d rounds, %ld switches, %u signals, %d differences\n",
                   level, &workers, &rounds, &switches, &signals, &differences),
            6)
      << run.out;
  printf("%s", run.out.c_str());
  EXPECT_EQ(differences, 0);
  EXPECT_EQ(rounds, wanted_rounds);
  // Each worker gives up the processor and is sent a signal at least once a round.
  EXPECT_GE(switches, workers * rounds);
  EXPECT_GE(signals, static_cast<unsigned>(workers * rounds));
}

TEST(VectorState, SurvivesContextSwitchesAndSignals) { RunVectorState("1", 10); }

TEST(VectorState, SurvivesMovesBetweenProcessors) { RunVectorState("2", 5); }

}  // namespace
}  // namespace cube::testing
