// What a machine that has been taken over can do in its jail: a program in place of cube-vmm tries
// it (pool/jail/jail_probe.cc), under the launcher that the node uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "pool/jail/jail_launcher.h"
#include "pool/jail/place.h"
#include "tests/node_daemon.h"
#include "tests/process.h"
#include "tests/vmm_command.h"
#include "vmm/cli/control_server.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

const char kId[] = "00112233445566778899";

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The probe in a jail, restored as a machine is.
class JailTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/jail-test-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    home_ = folder;
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
    Finished built = RunProcess({Env("CUBE_VMM"), "template", "build", "t", "--kernel",
                                 Env("CUBE_KERNEL"), "--initrd", Env("CUBE_INITRD")});
    unsetenv("CUBE_HOME");
    ASSERT_EQ(built.status, 0) << built.err;
    auto launcher =
        pool::JailLauncher::Create(io_, home_, fs::absolute(Env("CUBE_JAIL_PROBE")), {});
    ASSERT_TRUE(launcher.ok()) << launcher.error().message();
    launcher_ = std::move(*launcher);
    pool::Spawn(io_, Restore());
    io_.run();
    ASSERT_TRUE(started_.has_value());
    ASSERT_TRUE(started_->ok()) << started_->refusal().message;
    process_ = std::move(**started_);
  }

  void TearDown() override {
    launcher_->Forget(kId);
    io_.restart();
    io_.run();
    launcher_->Close();
    fs::remove_all(home_);
  }

  pool::Task<void> Restore() {
    pool::RestoreSpec spec = {home_ + "/templates/t", kId};
    started_.emplace(co_await launcher_->Restore(std::move(spec)));
  }

  void Tell(char what) {
    auto socket = vmm::ConnectControl(launcher_->ControlPath(kId));
    ASSERT_TRUE(socket.ok()) << socket.error().message();
    ASSERT_EQ(write(socket->get(), &what, 1), 1);
  }

  void AwaitItsEnd() {
    pollfd ended = {process_.fd(), POLLIN, 0};
    ASSERT_EQ(poll(&ended, 1, -1), 1);
  }

  std::string Results() const { return ReadText(home_ + "/node/boxes/" + kId + "/results"); }

  pool::asio::io_context io_;
  std::string home_;
  std::unique_ptr<pool::JailLauncher> launcher_;
  std::optional<pool::Outcome<pool::ProcessHandle>> started_;
  pool::ProcessHandle process_;
};

TEST_F(JailTest, NothingIsToBeHad) {
  const std::string results = Results();
  EXPECT_EQ(results.find("SUCCEEDED"), std::string::npos) << results;
  EXPECT_EQ(results.find("not tried"), std::string::npos) << results;
  EXPECT_THAT(results, ::testing::HasSubstr("a file of the host: refused"));
  EXPECT_THAT(results, ::testing::HasSubstr("ptrace: ended"));
  EXPECT_THAT(results, ::testing::HasSubstr("a call that there is not: ended"));
  // Its user is its own; nothing was left to it.
  const std::string status = ReadText("/proc/" + std::to_string(process_.pid()) + "/status");
  for (const char* line : {"CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000",
                           "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t1900000001\t1900000001"}) {
    EXPECT_THAT(status, ::testing::HasSubstr(line));
  }
}

TEST_F(JailTest, ACallThatIsNotAllowedIsTheReason) {
  Tell('k');
  AwaitItsEnd();
  EXPECT_EQ(launcher_->WhyEnded(kId, process_),
            "it made a system call that its jail does not allow");
}

TEST_F(JailTest, MemoryHasALimit) {
  pool::Limits limits;
  limits.memory_mib = 16;
  limits.cpus = 0.5;
  ASSERT_TRUE(launcher_->Confine(kId, process_, limits).ok());
  Tell('m');
  AwaitItsEnd();
  EXPECT_EQ(launcher_->WhyEnded(kId, process_),
            "memory limit: it had used all 16 MiB that it may have");
}

// Each clone of a zygote has what a restored machine has.
TEST(JailedNodeTest, ClonesAreJailedFromOneAnother) {
  NodeDaemon node("[pool]\nsize = 2\n");
  node.Start();
  std::set<std::string> users, spaces;
  for (int i = 0; i < 3; ++i) {
    const boost::json::object answer = node.Ask("sandbox.info", node.Create());
    const int64_t pid = Inner(answer, "sandbox").at("pid").as_int64();
    const std::string proc = "/proc/" + std::to_string(pid);
    const std::string status = ReadText(proc + "/status");
    for (const char* line : {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
                             "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
      EXPECT_THAT(status, ::testing::HasSubstr(line));
    }
    users.insert(status.substr(status.find("Uid:"), 16));
    for (const char* kind : {"mnt", "pid", "ipc", "uts"}) {
      spaces.insert(fs::read_symlink(proc + "/ns/" + kind));
    }
    for (const char* kind : {"mnt", "pid", "ipc", "uts", "net", "user"}) {
      EXPECT_NE(fs::read_symlink(proc + "/ns/" + kind),
                fs::read_symlink(std::string("/proc/self/ns/") + kind));
    }
    // A folder that is open would be a way out.
    for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
      struct stat info;
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
      EXPECT_FALSE(S_ISDIR(info.st_mode)) << fs::read_symlink(entry.path());
    }
    EXPECT_FALSE(fs::exists(proc + "/root/etc"));
  }
  EXPECT_EQ(users.size(), 3u);
  EXPECT_EQ(spaces.size(), 12u);
}

}  // namespace
}  // namespace cube::testing
