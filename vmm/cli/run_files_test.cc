#include "vmm/cli/run_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

namespace fs = std::filesystem;

class RunFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/run-files";
    fs::remove_all(home_);
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
    ASSERT_TRUE(MakeRunFolder().ok());
  }
  static std::string Id(char digit) { return std::string(20, digit); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  // A socket at `path`; where its descriptor is closed, nobody listens any more.
  static UniqueFd Bind(const std::string& path, bool listens = true) {
    const std::string before = fs::current_path();
    fs::current_path(fs::path(path).parent_path());  // the name alone is short enough
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    fs::path(path).filename().string().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_TRUE(!listens || listen(fd.get(), 1) == 0);
    fs::current_path(before);
    return fd;
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  std::string home_;
};

TEST_F(RunFilesTest, OfTheDeadOnlyWhatTheirLogsSayStays) {
  const std::string dead = Id('a'), empty = Id('b'), fell = "rehearsal-17";
  Bind(ControlPath(dead));
  Bind(VsockPath(dead));
  Write(LogPath(dead), "why\n");
  Write(LogPath(dead) + ".1", "before\n");
  Bind(ControlPath(empty));
  Write(LogPath(empty), "");
  Bind(VsockPath(fell));
  // Of one that died before it listened.
  Write(LogPath(Id('c')), "");
  Bind(VsockPath(Id('c')), false);
  Bind(ControlPath(Id('c')) + ".new", false);
  RemoveFilesOfDead();
  EXPECT_EQ(Names(), (std::set<std::string>{dead + ".log", dead + ".log.1"}));
}

TEST_F(RunFilesTest, NothingOfALivingOneIsTouched) {
  // One that listens, one that does not yet, and one that knows of no claims.
  const std::string running = Id('a'), starting = Id('b'), other = Id('c');
  UniqueFd claim = ClaimId(running).value(), early = ClaimId(starting).value();
  UniqueFd control = Bind(ControlPath(running));
  UniqueFd vsock = Bind(VsockPath(starting), false);
  UniqueFd old = Bind(ControlPath(other));
  for (const std::string& id : {running, starting, other}) Write(LogPath(id), "");
  const std::set<std::string> before = Names();
  // Often enough to fill a queue of connections, which does not hold it up.
  for (int i = 0; i < 8; ++i) RemoveFilesOfDead();
  EXPECT_EQ(Names(), before);
  claim.Reset();
  early.Reset();
  control.Reset();
  RemoveFilesOfDead();
  EXPECT_EQ(Names(), (std::set<std::string>{other + ".sock", other + ".log"}));
}

TEST_F(RunFilesTest, AClaimEndsWithTheProcessAndItsForks) {
  const std::string id = Id('a');
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pid_t parent = fork();
  if (parent == 0) {
    UniqueFd claim = ClaimId(id).value();
    pid_t child = fork();
    if (child != 0) {
      (void)!write(ends[1], &child, sizeof child);
      kill(getpid(), SIGKILL);
    }
    pause();
  }
  pid_t child = 0;
  ASSERT_EQ(read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ASSERT_EQ(waitpid(parent, nullptr, 0), parent);
  Write(LogPath(id), "");
  RemoveFilesOfDead();
  EXPECT_EQ(Names().size(), 1u);
  // The end of the pipe is that of the last who has it.
  close(ends[1]);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  uint8_t byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
  while (!Names().empty()) RemoveFilesOfDead();  // files are closed in the order of their numbers
}

TEST_F(RunFilesTest, WhatHasAnotherNameIsNoneOfItsBusiness) {
  for (const char* name : {"notes", "a.sock", ".sock", "rehearsal-x.vsock"}) {
    Write(home_ + "/run/" + name, "");
  }
  Write(home_ + "/run/" + Id('a') + "0.log", "");
  Write(home_ + "/run/" + Id('A') + ".log", "");
  Write(home_ + "/run/" + Id('a') + ".txt", "");
  const std::set<std::string> before = Names();
  RemoveFilesOfDead();
  EXPECT_EQ(Names(), before);
}

}  // namespace
}  // namespace cube::vmm
