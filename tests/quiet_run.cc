#include "tests/quiet_run.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {

std::string RunQuietly(std::vector<std::string> options, const std::vector<std::string>& command,
                       int seconds) {
  std::string console = Env("TEST_TMPDIR") + "/console";
  options.insert(options.end(), {"--console", console, "--append", "loglevel=7", "--timeout",
                                 std::to_string(seconds)});
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

}  // namespace cube::testing
