// Clones made, started and killed, again and again: nothing of them stays. $CYCLES says how often.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tests/await.h"
#include "tests/control_peer.h"
#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

size_t Entries(const std::string& path) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

// KiB of a field of /proc/meminfo.
long Meminfo(const std::string& field) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  long value;
  while (file >> name >> value) {
    if (name == field + ":") return value;
    std::getline(file, unit);
  }
  return 0;
}

TEST(CloneCycles, LeaveNothing) {
  const int cycles = atoi(Env("CYCLES").c_str());
  ASSERT_GT(cycles, 10);
  const std::string home = ::testing::TempDir() + "/cycles-home";
  ASSERT_EQ(setenv("CUBE_HOME", home.c_str(), 1), 0);
  ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);
  const std::string source = fs::directory_iterator(home + "/templates")->path().string();
  const std::string socket = home + "/zygote.sock";
  Process zygote({Env("CUBE_VMM"), "zygote", source, "--socket", socket});
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  const std::string descriptors = "/proc/" + std::to_string(zygote.pid()) + "/fd";
  ControlPeer peer(socket);
  auto cycle = [&](bool killed) {
    vmm::ControlRequest answer = peer.Ask("{\"op\":\"clone\"}");
    ASSERT_TRUE(ControlPeer::Ok(answer));
    const std::string path = home + "/run/" + answer.String("id").value() + ".sock";
    auto pid = static_cast<pid_t>(answer.Number("pid", 0, 1 << 30).value());
    {
      ControlPeer sandbox(path);
      ASSERT_TRUE(ControlPeer::Ok(sandbox.Ask("{\"op\":\"start\"}")));
      if (!killed) {
        ASSERT_TRUE(ControlPeer::Ok(sandbox.Ask("{\"op\":\"stop\"}")));
      }
    }
    if (killed) kill(pid, SIGKILL);
    AwaitEnd(pid);
  };
  // Who is killed cannot remove its own files: the next command does.
  auto clear = [] { ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0); };
  for (int i = 0; i < 10; ++i) cycle(i % 2 == 0);
  clear();
  const size_t open = Entries(descriptors), run = Entries(home + "/run");
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  const long slab = Meminfo("SUnreclaim"), virtual_memory = Meminfo("VmallocUsed");
  for (int i = 0; i < cycles; ++i) {
    cycle(i % 2 == 0);
    if (HasFatalFailure()) return;
  }
  clear();
  EXPECT_EQ(Entries(descriptors), open);
  EXPECT_EQ(Entries(home + "/run"), run);
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")).processes, before.processes);
  // Of a VM's kernel memory, some 400 KiB, less than a tenth would be seen in a thousand cycles.
  // The host frees it a little after the process has gone.
  constexpr long kNoise = 40 * 1024;
  for (int i = 0; i < 300 && (Meminfo("SUnreclaim") - slab > kNoise ||
                              Meminfo("VmallocUsed") - virtual_memory > kNoise);
       ++i) {
    usleep(100'000);
  }
  printf("%d cycles: SUnreclaim %+ld KiB, VmallocUsed %+ld KiB\n", cycles,
         Meminfo("SUnreclaim") - slab, Meminfo("VmallocUsed") - virtual_memory);
  EXPECT_LE(Meminfo("SUnreclaim") - slab, kNoise);
  EXPECT_LE(Meminfo("VmallocUsed") - virtual_memory, kNoise);
  EXPECT_TRUE(ControlPeer::Ok(peer.Ask("{\"op\":\"stop\"}")));
  EXPECT_EQ(zygote.Finish().status, 0);
}

}  // namespace
}  // namespace cube::testing
