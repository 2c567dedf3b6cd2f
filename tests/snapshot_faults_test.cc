// Snapshots when things go wrong: the process killed at any moment of writing one, two writers of
// one name, a disk that is full. Whatever was published stays whole.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <thread>

#include "snapshot/snapshot.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

Finished Cube(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), Env("CUBE_VMM"));
  return RunProcess(arguments);
}

// A running clone that waits for requests, and its id.
struct Sandbox {
  explicit Sandbox(const std::string& from)
      : process(
            std::make_unique<Process>(std::vector<std::string>{Env("CUBE_VMM"), "clone", from})) {
    id = process->ReadLine();
  }
  std::unique_ptr<Process> process;
  std::string id;
};

std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::vector<pid_t> children;
  std::error_code gone;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    std::ifstream list(task.path() / "children");
    for (pid_t child; list >> child;) children.push_back(child);
  }
  return children;
}

class SnapshotFaultsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/faults-home";
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
    ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);
    for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
      template_ = entry.path().string();
    }
    folder_ = home_ + "/out";
    fs::create_directories(folder_);
  }
  void TearDown() override {
    ExpectWhole(template_);
    fs::remove_all(folder_);
  }
  static void ExpectWhole(const std::string& path) {
    auto opened = snapshot::Snapshot::Open(path);
    EXPECT_TRUE(opened.ok()) << opened.error().message();
  }
  static size_t Entries(const std::string& path) {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }

  std::string home_, template_, folder_;
};

TEST_F(SnapshotFaultsTest, KilledAtAnyMomentNothingPublishedIsLost) {
  constexpr int kPoints = 50;
  std::mt19937 random(20);
  std::uniform_int_distribution<int> delay(0, 40'000);
  const std::string kept = folder_ + "/kept";
  {
    Sandbox sandbox(template_);
    ASSERT_EQ(Cube({"snapshot", sandbox.id, kept, "--diff"}).status, 0);
    kill(sandbox.process->pid(), SIGTERM);
  }
  int published = 0;
  for (int i = 0; i < kPoints; ++i) {
    SCOPED_TRACE(i);
    const std::string out = folder_ + "/at-" + std::to_string(i);
    // Of a template, and of a diff, whose diffs are the second of a chain.
    Sandbox sandbox(i % 2 == 0 ? template_ : kept);
    ASSERT_FALSE(sandbox.id.empty());
    std::vector<std::string> ask = {Env("CUBE_VMM"), "snapshot", sandbox.id, out};
    if (i % 3 != 0) ask.push_back("--diff");
    Process client(ask);
    usleep(static_cast<useconds_t>(delay(random)));
    // The sandbox, and whoever writes for it.
    std::vector<pid_t> writers = ChildrenOf(sandbox.process->pid());
    kill(sandbox.process->pid(), SIGKILL);
    for (pid_t writer : writers) kill(writer, SIGKILL);
    client.Finish();
    sandbox.process->Finish();
    if (!fs::exists(out)) continue;
    ++published;
    ExpectWhole(out);
  }
  ExpectWhole(kept);
  // What the killed ones left is told from what is published, and cleared away by the next.
  Sandbox sandbox(template_);
  ASSERT_EQ(Cube({"snapshot", sandbox.id, folder_ + "/last"}).status, 0);
  ExpectWhole(folder_ + "/last");
  EXPECT_EQ(Entries(folder_), static_cast<size_t>(published) + 2);
  kill(sandbox.process->pid(), SIGTERM);
  // What is there goes on.
  for (const auto& entry : fs::directory_iterator(folder_)) {
    SCOPED_TRACE(entry.path());
    Finished run = Cube({"clone", entry.path(), "--timeout", "60", "--", "/bin/echo", "alive"});
    EXPECT_EQ(run.out, "alive\n") << run.err;
  }
}

// Only the process that writes for the sandbox: at the moment it is made.
TEST_F(SnapshotFaultsTest, AWriterThatDiesIsOneLineAndTheSandboxGoesOn) {
  Sandbox sandbox(template_);
  const pid_t pid = sandbox.process->pid();
  ASSERT_EQ(ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_TRACEFORK), 0) << strerror(errno);
  Process client({Env("CUBE_VMM"), "snapshot", sandbox.id, folder_ + "/died"});
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, __WALL), pid);
  ASSERT_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
  unsigned long writer = 0;
  ASSERT_EQ(ptrace(PTRACE_GETEVENTMSG, pid, nullptr, &writer), 0);
  ASSERT_EQ(kill(static_cast<pid_t>(writer), SIGKILL), 0);
  ASSERT_EQ(ptrace(PTRACE_DETACH, pid, nullptr, nullptr), 0);
  while (waitpid(static_cast<pid_t>(writer), &status, __WALL) > 0 && !WIFSIGNALED(status)) {
  }
  Finished died = client.Finish();
  EXPECT_EQ(died.status, 1);
  EXPECT_EQ(died.err, "cube-vmm: the process that wrote the snapshot ended with status 0x9\n");
  EXPECT_EQ(Entries(folder_), 0u);
  ASSERT_EQ(Cube({"snapshot", sandbox.id, folder_ + "/next", "--diff"}).status, 0);
  ExpectWhole(folder_ + "/next");
  EXPECT_EQ(Cube({"stop", sandbox.id}).status, 0);
}

TEST_F(SnapshotFaultsTest, OfTwoWritersOfOneNameOneWins) {
  Sandbox first(template_), second(template_);
  for (int i = 0; i < 5; ++i) {
    const std::string out = folder_ + "/same-" + std::to_string(i);
    Process one({Env("CUBE_VMM"), "snapshot", first.id, out});
    Process two({Env("CUBE_VMM"), "snapshot", second.id, out});
    Finished a = one.Finish(), b = two.Finish();
    EXPECT_NE(a.status == 0, b.status == 0) << a.err << b.err;
    const std::string& error = a.status == 0 ? b.err : a.err;
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
    EXPECT_NE(error.find("same-" + std::to_string(i)), std::string::npos) << error;
    ExpectWhole(out);
  }
  EXPECT_EQ(Entries(folder_), 5u);
  for (Sandbox* sandbox : {&first, &second}) kill(sandbox->process->pid(), SIGTERM);
}

TEST_F(SnapshotFaultsTest, AFullDiskIsOneLineAndTheSandboxGoesOn) {
  const std::string small = folder_ + "/small";
  fs::create_directories(small);
  ASSERT_EQ(mount("faults", small.c_str(), "tmpfs", 0, "size=4m"), 0) << strerror(errno);
  Sandbox sandbox(template_);
  Finished full = Cube({"snapshot", sandbox.id, small + "/base"});
  EXPECT_NE(full.status, 0);
  EXPECT_EQ(std::count(full.err.begin(), full.err.end(), '\n'), 1) << full.err;
  EXPECT_NE(full.err.find("No space left on device"), std::string::npos) << full.err;
  EXPECT_FALSE(fs::exists(small + "/base"));
  // A diff is small enough, and finds the place free again.
  Finished diff = Cube({"snapshot", sandbox.id, small + "/diff", "--diff"});
  EXPECT_EQ(diff.status, 0) << diff.err;
  ExpectWhole(small + "/diff");
  EXPECT_EQ(Entries(small), 1u);
  EXPECT_EQ(Cube({"snapshot", sandbox.id, folder_ + "/elsewhere"}).status, 0);
  ExpectWhole(folder_ + "/elsewhere");
  kill(sandbox.process->pid(), SIGTERM);
  EXPECT_EQ(umount(small.c_str()), 0) << strerror(errno);
}

}  // namespace
}  // namespace cube::testing
