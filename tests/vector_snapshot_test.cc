// Every vector register of programs that are computing, across snapshots, rollbacks and restores of
// guests with one, two and four vCPUs: guest/vector_state.cc looks after them.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class VectorSnapshotTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/vector-home-" + GetParam();
    fs::remove_all(home_);
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
  }
  static std::vector<std::string> Command(std::vector<std::string> words) {
    words.insert(words.begin(), Env("CUBE_VMM"));
    return words;
  }
  static Finished Ask(std::vector<std::string> words) {
    return RunProcess(Command(std::move(words)));
  }
  std::string Only(const char* folder) {
    for (const auto& entry : fs::directory_iterator(home_ + folder)) {
      if (entry.path().extension() != ".log") return entry.path();
    }
    return "";
  }
  static void ExpectUndisturbed(const Finished& run) {
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_NE(run.out.find(" 0 differences\n"), std::string::npos) << run.out << run.err;
  }

  std::string home_;
};

TEST_P(VectorSnapshotTest, RegistersOfComputingProgramsStay) {
  ASSERT_EQ(RunProcess(CloneVmm({"--cpus", GetParam()}, {"/bin/true"})).status, 0);
  Process guest(Command(
      {"clone", Only("/templates"), "--", "/bin/sh", "-c", "echo up; exec /bin/vector_state 12"}));
  ASSERT_EQ(guest.ReadLine(), "up");
  constexpr int kSnapshots = 4;
  for (int i = 0; i < kSnapshots; ++i) {
    Finished taken = Ask({"snapshot", Only("/run"), home_ + "/" + std::to_string(i), "--diff"});
    ASSERT_EQ(taken.status, 0) << taken.err;
    if (i % 2 == 0) continue;
    Finished back = Ask({"rollback", Only("/run"), home_ + "/" + std::to_string(i - 1)});
    ASSERT_EQ(back.status, 0) << back.err;
  }
  ExpectUndisturbed(guest.Finish());
  for (int i = 0; i < kSnapshots; ++i) {
    SCOPED_TRACE(i);
    ExpectUndisturbed(Ask({"restore", home_ + "/" + std::to_string(i)}));
  }
}

INSTANTIATE_TEST_SUITE_P(Vcpus, VectorSnapshotTest, ::testing::Values("1", "2", "4"));

}  // namespace
}  // namespace cube::testing
