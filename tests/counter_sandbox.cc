#include "tests/counter_sandbox.h"

#include <stdlib.h>

#include <filesystem>

#include "tests/vmm_command.h"

namespace cube::testing {

namespace fs = std::filesystem;

std::string NextAnswer(Process* process) {
  process->Send("\n");
  return process->ReadLine() + "\n";
}

void SandboxTest::SetUp() {
  const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
  home_ = ::testing::TempDir() + "/" + test->test_suite_name() + "-home";
  ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
  ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);
  for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
    template_ = entry.path().string();
  }
  work_ = home_ + "/" + test->name();
  fs::remove_all(work_);
  fs::create_directories(work_);
}

std::vector<std::string> SandboxTest::Command(std::vector<std::string> words) {
  words.insert(words.begin(), Env("CUBE_VMM"));
  return words;
}

Finished SandboxTest::Ask(std::vector<std::string> words) {
  return RunProcess(Command(std::move(words)));
}

std::string SandboxTest::Socket() const {
  std::string found;
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
    if (entry.path().extension() == ".sock") found = entry.path().string();
  }
  return found;
}

std::vector<std::string> SandboxTest::Counter() const {
  return Command({"clone", template_, "--", "/bin/sh", "-c", kCounter});
}

}  // namespace cube::testing
