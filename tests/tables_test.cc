// A guest kernel that does to its page tables what Linux would not (tests/guest/kernels/tables.cc).
#include <gtest/gtest.h>

#include <string>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// What the kernel says before it resets the machine.
std::string Console(const char* kernel, const std::string& ring0) {
  Finished run =
      RunProcess({Env("CUBE_VMM"), "run", "--kernel", Env("CUBE_KERNELS") + kernel, "--initrd", "",
                  "--ring0", ring0, "--console", "-", "--timeout", "300", "--", "/bin/true"});
  EXPECT_EQ(run.status, 125) << run.err;
  EXPECT_NE(run.err.find("cube-vmm: the guest restarted"), std::string::npos) << run.err;
  return run.err.substr(0, run.err.find('\n'));
}

TEST(Tables, UserModeSeesWhatTheySay) {
  EXPECT_EQ(Console("tables", "engine").rfind("ok ", 0), 0u);
}

TEST(Tables, AreTheSameToKvmsEmulator) {
  std::string engine = Console("tables_short", "engine");
  EXPECT_EQ(engine.rfind("ok ", 0), 0u) << engine;
  EXPECT_EQ(Console("tables_short", "kvm"), engine);
}

}  // namespace
}  // namespace cube::testing
