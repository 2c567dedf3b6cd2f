// `cube-vmm run` by cloning: a template is made once, and its clones are machines of their own.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

bool Cloned(const Finished& run) { return run.out.find("\"boot\":") == std::string::npos; }

class CloneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string home = ::testing::TempDir() + "/clone-home";
    ASSERT_EQ(setenv("CUBE_HOME", home.c_str(), 1), 0);
    templates_ = home + "/templates";
  }
  // The folder of the only template; all tests of this file share it.
  fs::path Template() {
    RunProcess(CloneVmm({}, {"/bin/true"}));
    fs::path found;
    for (const auto& entry : fs::directory_iterator(templates_)) found = entry.path();
    return found;
  }
  static Finished Sh(const std::string& script, std::vector<std::string> options = {}) {
    return RunProcess(CloneVmm(options, {"/bin/sh", "-c", script}));
  }

  std::string templates_;
};

TEST_F(CloneTest, TheFirstRunBootsAndTheNextClones) {
  fs::remove_all(templates_);
  Finished first = RunProcess(CloneVmm({"--json"}, {"/bin/echo", "hello"}));
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_FALSE(Cloned(first));
  Finished second = RunProcess(CloneVmm({"--json"}, {"/bin/echo", "hello"}));
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_TRUE(Cloned(second)) << second.out;
  EXPECT_NE(second.out.find("hello"), std::string::npos);
  Finished booted = RunProcess(Vmm({"--json"}, {"/bin/echo", "hello"}));
  EXPECT_FALSE(Cloned(booted));
  // Another machine is another template.
  Finished other = RunProcess(CloneVmm({"--json", "--memory", "160"}, {"/bin/true"}));
  EXPECT_FALSE(Cloned(other));
  EXPECT_EQ(other.status, 0);
  fs::remove_all(templates_);
}

TEST_F(CloneTest, ClonesDifferInEverythingRandom) {
  Template();
  const char* script =
      "echo $CUBE_SANDBOX_ID; head -c 16 /dev/urandom | od -An -tx1; "
      "head -c 16 /dev/random | od -An -tx1; cat /proc/sys/kernel/random/uuid "
      "/proc/sys/kernel/random/boot_id; cat /proc/self/maps | grep stack | cut -d- -f1";
  Finished a = Sh(script), b = Sh(script);
  ASSERT_EQ(a.status, 0) << a.err;
  ASSERT_EQ(b.status, 0) << b.err;
  std::istringstream lines_a(a.out), lines_b(b.out);
  std::string line_a, line_b;
  int count = 0;
  while (std::getline(lines_a, line_a) && std::getline(lines_b, line_b)) {
    EXPECT_NE(line_a, line_b) << "line " << count;
    EXPECT_FALSE(line_a.empty());
    ++count;
  }
  EXPECT_EQ(count, 6);
}

TEST_F(CloneTest, HasTheHostsTimeAndItsOwnUptime) {
  Template();
  std::string before = Sh("cut -d. -f1 /proc/uptime").out;
  sleep(3);  // time that passes between template and clone is not the clone's
  long not_before = time(nullptr);
  Finished run = Sh("cut -d. -f1 /proc/uptime; date +%s; hostname");
  long not_after = time(nullptr);
  ASSERT_EQ(run.status, 0) << run.err;
  std::istringstream in(run.out);
  long uptime = 0, date = 0;
  std::string hostname;
  in >> uptime >> date >> hostname;
  EXPECT_GE(date, not_before);
  EXPECT_LE(date, not_after);
  EXPECT_LE(labs(uptime - atol(before.c_str())), 2) << before << run.out;
  EXPECT_EQ(hostname, "cube");
}

TEST_F(CloneTest, ClonesDoNotSeeEachOthersWrites) {
  Template();
  EXPECT_EQ(Sh("echo mine > /root/file; head -c 8000000 /dev/urandom > /root/large; sync").status,
            0);
  EXPECT_EQ(Sh("ls /root | wc -l").out, "0\n");
}

TEST_F(CloneTest, SeveralVcpus) {
  for (int i = 0; i < 3; ++i) {
    Finished run =
        Sh("nproc; for i in 1 2 3 4 5 6 7 8; do (head -c 300000 /dev/urandom | md5sum > "
           "/tmp/$i) & done; wait; ls /tmp | wc -l",
           {"--cpus", "2"});
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.out, "2\n8\n");
  }
}

TEST_F(CloneTest, StdinOutputAndStatusAsFromABootedGuest) {
  Template();
  Finished run = RunProcess(CloneVmm({}, {"/bin/sh", "-c", "cat; echo e >&2; exit 7"}), "input");
  EXPECT_EQ(run.status, 7);
  EXPECT_EQ(run.out, "input");
  EXPECT_EQ(run.err, "e\n");
  EXPECT_EQ(RunProcess(CloneVmm({}, {"/no/such"})).status, 127);
}

TEST_F(CloneTest, ADamagedTemplateIsMadeAnew) {
  for (const char* name : {"manifest.json", "state", "memory"}) {
    SCOPED_TRACE(name);
    fs::remove_all(templates_);  // those of other tests' machines
    fs::path file = Template() / name;
    ASSERT_TRUE(fs::exists(file));
    {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekg(200);
      char byte = static_cast<char>(stream.get());
      stream.seekp(200);
      stream.put(static_cast<char>(byte ^ 4));
    }
    Finished run = RunProcess(CloneVmm({"--json"}, {"/bin/echo", "hello"}));
    EXPECT_EQ(run.status, 0);
    EXPECT_NE(run.err.find("making the template anew: "), std::string::npos) << run.err;
    EXPECT_NE(run.err.find(name), std::string::npos) << run.err;
    EXPECT_FALSE(Cloned(run));
    EXPECT_TRUE(Cloned(RunProcess(CloneVmm({"--json"}, {"/bin/true"}))));
  }
}

TEST_F(CloneTest, ManyInARowLeaveNothingBehind) {
  Template();
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  for (int i = 0; i < 50; ++i) {
    Finished run = RunProcess(CloneVmm({}, {"/bin/echo", std::to_string(i)}));
    ASSERT_EQ(run.status, 0) << run.err;
    ASSERT_EQ(run.out, std::to_string(i) + "\n");
  }
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")), before);
  size_t templates = 0;
  for (const auto& entry : fs::directory_iterator(templates_)) {
    (void)entry;
    ++templates;
  }
  EXPECT_LE(templates, 3u);
}

}  // namespace
}  // namespace cube::testing
