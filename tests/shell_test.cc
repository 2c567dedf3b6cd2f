// `cube-vmm run` without a command, on a terminal: a shell in the guest.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/pty_process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

constexpr char kPrompt[] = "~ # ";

bool SameSettings(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
         a.c_lflag == b.c_lflag && memcmp(a.c_cc, b.c_cc, sizeof a.c_cc) == 0;
}

TEST(Shell, ServesTheTerminalAndGivesItBackOnCtrlAx) {
  PtyProcess vmm(Vmm({"-e", "PS1=~ # "}, {}), 33, 101);
  const termios before = vmm.Settings();
  ASSERT_NE(before.c_lflag & ICANON, 0u);
  ASSERT_TRUE(vmm.See("leave with Ctrl-A x")) << vmm.screen();
  ASSERT_TRUE(vmm.See(kPrompt)) << vmm.screen();
  // Keys go to the guest as they are typed, and only the guest's terminal echoes them.
  EXPECT_EQ(vmm.Settings().c_lflag & (ICANON | ECHO | ISIG), 0u);

  vmm.Type("echo $((6 * 7)) in $(hostname)\r");
  EXPECT_TRUE(vmm.See("echo $((6 * 7)) in $(hostname)\r\n42 in cube\r\n")) << vmm.screen();
  vmm.Type("stty size\r");
  EXPECT_TRUE(vmm.See("33 101\r\n")) << vmm.screen();
  // Ctrl-C is the guest's. The program says itself that it runs: between its fork and its exec the
  // shell's own handler would swallow the signal.
  vmm.Type("sh -c 'echo begun; exec sleep 1000'\r");
  EXPECT_TRUE(vmm.See("\r\nbegun\r\n")) << vmm.screen();
  vmm.Type("\3");
  ASSERT_TRUE(vmm.See(kPrompt)) << vmm.screen();
  vmm.Type("echo status $?\r");
  EXPECT_TRUE(vmm.See("\r\nstatus 130\r\n")) << vmm.screen();

  vmm.Type("\1x");
  EXPECT_EQ(vmm.Finish(), 0) << vmm.screen();
  EXPECT_TRUE(SameSettings(vmm.Settings(), before));
}

TEST(Shell, TheStatusOfItsEndIsTheVms) {
  PtyProcess vmm(Vmm({"-e", "PS1=~ # "}, {}), 24, 80);
  const termios before = vmm.Settings();
  ASSERT_TRUE(vmm.See(kPrompt)) << vmm.screen();
  vmm.Type("echo last words; exit 5\r");
  EXPECT_EQ(vmm.Finish(), 5) << vmm.screen();
  EXPECT_NE(vmm.screen().find("\r\nlast words\r\n"), std::string::npos) << vmm.screen();
  EXPECT_TRUE(SameSettings(vmm.Settings(), before));
}

TEST(Shell, ATimeLimitGivesTheTerminalBackToo) {
  PtyProcess vmm(Vmm({"--timeout", "1"}, {}), 24, 80);
  const termios before = vmm.Settings();
  EXPECT_EQ(vmm.Finish(), 124) << vmm.screen();
  EXPECT_NE(vmm.screen().find("cube-vmm: time limit of 1 s reached\r\n"), std::string::npos)
      << vmm.screen();
  EXPECT_TRUE(SameSettings(vmm.Settings(), before));
}

}  // namespace
}  // namespace cube::testing
