// Guest kernels that never return to user mode.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// Each processor says x and goes on for ever (tests/guest/kernels/endless.S). The time limit and a
// signal end the VM, whatever they do and on how many processors.
class Endless : public ::testing::TestWithParam<const char*> {
 protected:
  static std::vector<std::string> Command(const char* kernel, const std::string& cpus,
                                          const std::string& seconds) {
    return {Env("CUBE_VMM"),
            "run",
            "--kernel",
            Env("CUBE_ENDLESS") + kernel,
            "--initrd",
            "",
            "--cpus",
            cpus,
            "--console",
            "-",
            "--timeout",
            seconds,
            "--",
            "/bin/true"};
  }
};

TEST_P(Endless, IsStoppedByTheTimeLimit) {
  for (const char* cpus : {"1", "4"}) {
    Finished run = RunProcess(Command(GetParam(), cpus, "1"));
    EXPECT_EQ(run.status, 124);
    EXPECT_NE(run.err.find("cube-vmm: time limit of 1 s reached\n"), std::string::npos) << run.err;
  }
}

TEST_P(Endless, LetsEveryProcessorRunAndIsStoppedByASignal) {
  for (size_t cpus : {1, 4}) {
    Process process(Command(GetParam(), std::to_string(cpus), "100"));
    process.WaitForError(std::string(cpus, 'x'));
    kill(process.pid(), SIGTERM);
    Finished run = process.Finish();
    EXPECT_EQ(run.status, 128 + SIGTERM);
    EXPECT_NE(run.err.find("cube-vmm: stopped by signal 15\n"), std::string::npos) << run.err;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Endless,
                         ::testing::Values("loop", "exceptions", "assists", "msrs", "faults"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace cube::testing
