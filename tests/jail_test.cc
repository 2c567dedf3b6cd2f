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

constexpr char kId[] = "00112233445566778899";
constexpr char kOther[] = "0123456789abcdef0123";  // whom the probe tries to reach
constexpr char kZygote[] = "zygote-1-1";

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Probes in jails, as machines and zygotes are.
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
  }

  void TearDown() override {
    for (const std::string& id : launcher_->FindIds()) launcher_->Forget(id);
    launcher_->ForgetZygote(kZygote);
    io_.restart();
    io_.run();
    launcher_->Close();
    fs::remove_all(home_);
  }

  pool::ProcessHandle Restore(const std::string& id) {
    return Run(launcher_->Restore({home_ + "/templates/t", id}));
  }

  pool::ProcessHandle StartZygote() {
    return Run(launcher_->StartZygote({home_ + "/templates/t", kZygote}));
  }

  // The clone's id.
  std::string Clone() {
    auto request = launcher_->PrepareClone(kZygote);
    EXPECT_TRUE(request.ok());
    auto socket = vmm::ConnectControl(launcher_->ZygoteSocket(kZygote));
    EXPECT_TRUE(socket.ok()) << socket.error().message();
    std::vector<int> descriptors;
    for (const UniqueFd& one : request->descriptors) descriptors.push_back(one.get());
    EXPECT_TRUE(vmm::SendLine(socket->get(), request->line, descriptors).ok());
    std::string buffer;
    auto answer = vmm::ReceiveLine(socket->get(), &buffer);
    EXPECT_TRUE(answer.ok()) << answer.error().message();
    EXPECT_EQ(*answer, "{\"ok\":true}");
    return request->id;
  }

  // The connection.
  UniqueFd Tell(const std::string& id, char what) {
    auto socket = vmm::ConnectControl(launcher_->ControlPath(id));
    EXPECT_TRUE(socket.ok()) << socket.error().message();
    EXPECT_EQ(write(socket->get(), &what, 1), 1);
    return std::move(*socket);
  }

  void AwaitItsEnd(const pool::ProcessHandle& process) {
    pollfd ended = {process.fd(), POLLIN, 0};
    ASSERT_EQ(poll(&ended, 1, -1), 1);
  }

  std::string Results(const std::string& name) const {
    return ReadText(home_ + "/node/boxes/" + name + "/results");
  }

  // Of what a jailed process tried, what it could do, in the order of its tries.
  std::vector<std::string> Succeeded(const std::string& name) const {
    std::vector<std::string> succeeded;
    std::istringstream results(Results(name));
    size_t tries = 0;
    for (std::string line; std::getline(results, line); ++tries) {
      const size_t colon = line.rfind(": ");
      const std::string outcome = line.substr(colon + 2);
      if (outcome == "refused" || outcome == "ended") continue;
      succeeded.push_back(line.substr(0, colon));
      EXPECT_EQ(outcome, "SUCCEEDED") << line;
    }
    EXPECT_GT(tries, 60u) << Results(name);
    return succeeded;
  }

  // How often its cgroup had used its share of the processors.
  int Throttled(const std::string& id) const {
    auto cgroups = pool::Cgroups::Open(pool::Cgroups::KeyOf(home_));
    if (!cgroups.ok()) return -1;
    for (const std::string& folder : cgroups->Folders(id)) {
      std::istringstream words(ReadText(folder + "/cpu.stat"));
      std::string word;
      for (int count; words >> word >> count;) {
        if (word == "nr_throttled") return count;
      }
    }
    return -1;
  }

  pool::asio::io_context io_;
  std::string home_;
  std::unique_ptr<pool::JailLauncher> launcher_;

 private:
  pool::ProcessHandle Run(pool::Task<pool::Outcome<pool::ProcessHandle>> start) {
    std::optional<pool::Outcome<pool::ProcessHandle>> started;
    pool::Spawn(io_, Await(std::move(start), &started));
    io_.restart();
    io_.run();
    EXPECT_TRUE(started.has_value());
    EXPECT_TRUE(started->ok()) << started->refusal().message;
    return started->ok() ? std::move(**started) : pool::ProcessHandle();
  }

  static pool::Task<void> Await(pool::Task<pool::Outcome<pool::ProcessHandle>> start,
                                std::optional<pool::Outcome<pool::ProcessHandle>>* started) {
    started->emplace(co_await std::move(start));
  }
};

TEST_F(JailTest, NothingIsToBeHadByARestoredMachine) {
  pool::ProcessHandle other = Restore(kOther);
  // It is there, for whoever may reach it.
  ASSERT_TRUE(vmm::ConnectControl(launcher_->ControlPath(kOther)).ok());
  pool::ProcessHandle process = Restore(kId);
  EXPECT_THAT(Succeeded(kId), ::testing::IsEmpty());
  const std::string results = Results(kId);
  EXPECT_THAT(results, ::testing::HasSubstr("a file of the host: refused"));
  EXPECT_THAT(results, ::testing::HasSubstr("ptrace: ended"));
  EXPECT_THAT(results, ::testing::HasSubstr("a call that there is not: ended"));
  EXPECT_TRUE(other.Alive());
  // Its user is its own; nothing was left to it.
  const std::string status = ReadText("/proc/" + std::to_string(process.pid()) + "/status");
  for (const char* line : {"CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000",
                           "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t1900000002\t1900000002"}) {
    EXPECT_THAT(status, ::testing::HasSubstr(line));
  }
}

TEST_F(JailTest, AZygoteCanDoNoMoreThanMakeClones) {
  pool::ProcessHandle other = Restore(kOther);
  pool::ProcessHandle zygote = StartZygote();
  // What is its own; within its user namespace: clones' namespaces and users, rings for clones with
  // disks; and the parent of the process that tried is one of its own.
  EXPECT_THAT(Succeeded(kZygote), ::testing::UnorderedElementsAre(
                                      "the zygote's results", "a signal to all",
                                      "a clone's namespaces", "io_uring", "setresuid", "setgroups"))
      << Results(kZygote);
  EXPECT_TRUE(other.Alive());
}

TEST_F(JailTest, NothingIsToBeHadByAClone) {
  pool::ProcessHandle other = Restore(kOther);
  pool::ProcessHandle zygote = StartZygote();
  const std::string first = Clone(), second = Clone();
  EXPECT_THAT(Succeeded(first), ::testing::IsEmpty());
  EXPECT_THAT(Succeeded(second), ::testing::IsEmpty());
  EXPECT_TRUE(other.Alive());
  EXPECT_TRUE(zygote.Alive());
}

TEST_F(JailTest, ACallThatIsNotAllowedIsTheReason) {
  pool::ProcessHandle process = Restore(kId);
  Tell(kId, 'k');
  AwaitItsEnd(process);
  EXPECT_EQ(launcher_->WhyEnded(kId, process),
            "it made a system call that its jail does not allow");
}

TEST_F(JailTest, MemoryHasALimit) {
  pool::ProcessHandle process = Restore(kId), other = Restore(kOther);
  pool::Limits limits;
  limits.memory_mib = 16;
  ASSERT_TRUE(launcher_->Confine(kId, process, limits).ok());
  Tell(kId, 'm');
  AwaitItsEnd(process);
  EXPECT_EQ(launcher_->WhyEnded(kId, process),
            "memory limit: it had used all 16 MiB that it may have");
  EXPECT_TRUE(other.Alive());
}

TEST_F(JailTest, ProcessesHaveALimit) {
  pool::ProcessHandle process = Restore(kId);
  UniqueFd said = Tell(kId, 'f');
  std::string buffer;
  auto count = vmm::ReceiveLine(said.get(), &buffer);
  ASSERT_TRUE(count.ok()) << count.error().message();
  // Itself is one of the 64.
  EXPECT_EQ(*count, "63");
}

// Of a process that wants all of a processor, the kernel says that it has been held back.
TEST_F(JailTest, ProcessorsHaveALimit) {
  pool::ProcessHandle process = Restore(kId);
  pool::Limits limits;
  limits.cpus = 0.1;
  ASSERT_TRUE(launcher_->Confine(kId, process, limits).ok());
  UniqueFd said = Tell(kId, 'c');
  std::string buffer;
  auto done = vmm::ReceiveLine(said.get(), &buffer);
  ASSERT_TRUE(done.ok()) << done.error().message();
  // A tenth of a second's work, a hundredth in each tenth.
  EXPECT_GE(Throttled(kId), 5);
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
