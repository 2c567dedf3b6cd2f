// A guest that KVM and the assist layer give up on: one line says why, and a dump shows where.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/process.h"
#include "tests/pty_process.h"
#include "tests/vmm_command.h"
#include "vmm/loader/test_images.h"

namespace cube::testing {
namespace {

// On every kind of host: KVM has to emulate an instruction that reaches for a device's memory, and
// knows no arithmetic on vectors.
constexpr uint64_t kEntry = 0x1000000;
const std::vector<uint8_t> kCode = {
    0x49, 0xb9, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // movabs $0x1122334455667788,%r9
    0x68, 0x04, 0x00, 0x00, 0x01,                                // push $0x1000004
    0x0f, 0x20, 0xe0,                                            // mov %cr4,%rax
    0x0d, 0x00, 0x02, 0x00, 0x00,                                // or $0x200,%eax: OSFXSR
    0x0f, 0x22, 0xe0,                                            // mov %rax,%cr4
    0xb8, 0x00, 0x00, 0x00, 0xe0,                                // mov $0xe0000000,%eax
    0x0f, 0x59, 0x00,                                            // mulps (%rax),%xmm0
    0xf4,                                                        // hlt
};
constexpr char kReason[] =
    "cube-vmm: KVM internal error (exit 17, suberror 1) on vCPU 0 at rip 0x100001f";

// `cube-vmm run` with that guest; `options` come before the command.
std::vector<std::string> RunGuest(const std::vector<std::string>& options,
                                  const std::vector<std::string>& command) {
  std::string path = vmm::testing::WriteTempFile(
      "gives-up", vmm::testing::MakeElf(kEntry, {{kEntry, kCode, 4096}}));
  std::vector<std::string> all = {Env("CUBE_VMM"), "run", "--boot", "--kernel", path, "--initrd", "",
                                  "--timeout", "20"};
  all.insert(all.end(), options.begin(), options.end());
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

size_t Occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(CrashDump, ShowsRegistersCodeAndStackBesideOneReason) {
  Finished run = RunProcess(RunGuest({}, {"--", "/bin/true"}));
  EXPECT_EQ(run.status, 125);
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(Occurrences(run.err, "cube-vmm: "), 1u) << run.err;
  for (const char* part :
       {kReason, "vCPU 0 at 0x100001f, ring 0\n", "r9  1122334455667788",
        "rax 00000000e0000000", "rip 000000000100001f", "cr0 ", "efer ",
        "000000000100001f  0f5900", "mulps xmm0, xmmword ptr [rax]\n", "hlt",
        "  [rsp+00] 0x1000004\n"}) {
    EXPECT_NE(run.err.find(part), std::string::npos) << part << "\nis not in\n" << run.err;
  }
}

TEST(CrashDump, NamesAddressesByTheSystemMap) {
  std::string map = Env("TEST_TMPDIR") + "/System.map";
  std::ofstream(map) << "0000000000ffff00 T before\n"
                        "0000000001000000 T entry\n"
                        "0000000001000008 D data\n"
                        "0000000001000010 t inner\n"
                        "0000000001000100 T behind\n";
  Finished run = RunProcess(RunGuest({"--system-map", map}, {"--", "/bin/true"}));
  EXPECT_EQ(run.status, 125);
  for (const char* part :
       {kReason, "vCPU 0 at 0x100001f (inner+0xf), ring 0\n", "[rsp+00] 0x1000004 (entry+0x4)\n"}) {
    EXPECT_NE(run.err.find(part), std::string::npos) << part << "\nis not in\n" << run.err;
  }
}

TEST(CrashDump, ASystemMapThatIsNotThereCostsOnlyTheNames) {
  Finished run = RunProcess(RunGuest({"--system-map", "/no/System.map"}, {"--", "/bin/true"}));
  EXPECT_EQ(run.status, 125);
  EXPECT_NE(run.err.find("vCPU 0 at 0x100001f, ring 0\n"), std::string::npos) << run.err;
}

// On a terminal that is still raw, the lines of the dump would run into a staircase.
TEST(CrashDump, ComesOnATerminalThatIsUsableAgain) {
  PtyProcess vmm(RunGuest({}, {}), 24, 80);
  EXPECT_EQ(vmm.Finish(), 125);
  EXPECT_NE(vmm.screen().find("mulps xmm0"), std::string::npos) << vmm.screen();
  EXPECT_EQ(Occurrences(vmm.screen(), "\n"), Occurrences(vmm.screen(), "\r\n")) << vmm.screen();
}

}  // namespace
}  // namespace cube::testing
