#include "vmm/cli/host_verdict.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace cube::vmm {
namespace {

class HostVerdictTest : public ::testing::Test {
 protected:
  std::string path_ = ::testing::TempDir() + "/verdict/file";
  std::string device_ = "/dev/null";  // any device
  void TearDown() override { std::filesystem::remove_all(::testing::TempDir() + "/verdict"); }
};

TEST_F(HostVerdictTest, IsKept) {
  HostVerdict verdict(path_, device_);
  EXPECT_FALSE(verdict.Load().has_value());
  for (bool emulated : {true, false, true}) {
    verdict.Store(emulated);
    EXPECT_EQ(HostVerdict(path_, device_).Load(), emulated);
  }
  // Nothing else is left there.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(::testing::TempDir() + "/verdict"),
                          std::filesystem::directory_iterator()),
            1);
}

TEST_F(HostVerdictTest, OfAnotherDeviceIsNone) {
  HostVerdict(path_, device_).Store(true);
  EXPECT_FALSE(HostVerdict(path_, "/dev/zero").Load().has_value());
  EXPECT_FALSE(HostVerdict(path_, "/dev/no-such").Load().has_value());
}

TEST_F(HostVerdictTest, WhatIsNotQuiteRightIsNone) {
  HostVerdict verdict(path_, device_);
  verdict.Store(true);
  std::string text;
  std::getline(std::ifstream(path_), text);
  for (const std::string& wrong : {std::string(), text, text + "\n\n", text.substr(1) + "\n",
                                   text + "x\n", std::string(100000, 'a')}) {
    std::ofstream(path_) << wrong;
    EXPECT_FALSE(verdict.Load().has_value()) << wrong.size();
  }
  std::ofstream(path_) << text << '\n';
  EXPECT_EQ(verdict.Load(), true);
}

TEST_F(HostVerdictTest, AFolderThatCannotBeWrittenIsNoError) {
  HostVerdict verdict("/proc/nothing/here", device_);
  verdict.Store(true);
  EXPECT_FALSE(verdict.Load().has_value());
}

}  // namespace
}  // namespace cube::vmm
