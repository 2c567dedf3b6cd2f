// Forks of running sandboxes: each clone goes on from where its parent was, as a machine of its
// own.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/await.h"
#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

std::string FileText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Waits until `path` has as many lines.
std::string AwaitLines(const std::string& path, long lines) {
  std::string text;
  AwaitChange(fs::path(path).parent_path(), [&] {
    text = FileText(path);
    return std::count(text.begin(), text.end(), '\n') >= lines;
  });
  return text;
}

class ForkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/fork-home";
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
  }
  void TearDown() override {
    // Those that a failed test has left.
    for (const std::string& id : Ids()) Ask({"stop", id});
    AwaitAllEnded();
    for (const auto& entry : fs::directory_iterator(home_ + "/run")) fs::remove(entry.path());
  }
  // The template of that machine; all tests of this file share them.
  std::string Template(std::vector<std::string> options = {}) {
    Finished made = RunProcess(CloneVmm(options, {"/bin/echo", "-n"}));
    EXPECT_EQ(made.status, 0) << made.err;
    std::string found;
    fs::file_time_type newest;
    for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
      // A clone of it has written nothing there, so the one just made is the newest.
      if (found.empty() || entry.last_write_time() > newest) {
        found = entry.path().string();
        newest = entry.last_write_time();
      }
    }
    return found;
  }
  static std::vector<std::string> Command(std::vector<std::string> words) {
    words.insert(words.begin(), Env("CUBE_VMM"));
    return words;
  }
  static Finished Ask(std::vector<std::string> words) {
    return RunProcess(Command(std::move(words)));
  }
  // Ids of all sandboxes.
  std::set<std::string> Ids() const {
    std::set<std::string> ids;
    if (!fs::exists(home_ + "/run")) return ids;
    for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
      if (entry.path().extension() == ".sock") ids.insert(entry.path().stem().string());
    }
    return ids;
  }
  void AwaitAllEnded() const {
    AwaitChange(home_ + "/run", [this] { return Ids().empty(); });
  }
  std::string Log(const std::string& id) const { return home_ + "/run/" + id + ".log"; }
  // The clones' ids, in the order in which they were ready.
  static std::vector<std::string> Fork(const std::string& id, int count) {
    Finished fork = Ask({"fork", id, "-n", std::to_string(count)});
    EXPECT_EQ(fork.status, 0) << fork.err;
    std::istringstream in(fork.out);
    std::vector<std::string> ids;
    for (std::string line; std::getline(in, line);) ids.push_back(line);
    EXPECT_EQ(ids.size(), static_cast<size_t>(count)) << fork.out;
    return ids;
  }

  std::string home_;
};

// Waits for its input, which a clone's is at the end of. Then says who it is, what it draws and
// whether its memory is whole, and in the end how many names it had written to a file of its own.
constexpr char kTeller[] =
    "head -c 4000000 /dev/urandom > /tmp/data; sum=$(md5sum < /tmp/data); echo begun; read line; "
    "for i in 1 2 3 4 5 6; do sleep 0.1; echo $(hostname) "
    "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ') "
    "$(test \"$(md5sum < /tmp/data)\" = \"$sum\" && echo same) $i; hostname >> /tmp/who; done; "
    "sort -u /tmp/who | wc -l; cat /tmp/who | wc -l";

TEST_F(ForkTest, EachCloneGoesOnAsAMachineOfItsOwn) {
  std::string from = Template();
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  constexpr int kClones = 4;
  std::string parent_out;
  {
    Process parent(Command({"clone", from, "--", "/bin/sh", "-c", kTeller}));
    ASSERT_EQ(parent.WaitForOutput(), "begun\n");
    std::string parent_id = *Ids().begin();
    std::vector<std::string> clones = Fork(parent_id, kClones);
    Finished end = parent.Finish("\n");
    EXPECT_EQ(end.status, 0) << end.err;
    parent_out = end.out;
    // Their command ends, and so do they.
    AwaitAllEnded();
    std::set<std::string> random, names;
    auto take = [&](const std::string& text, const std::string& name) {
      std::istringstream in(text);
      std::string host, bytes, same, number, line;
      for (int i = 1; i <= 6 && in >> host >> bytes >> same >> number; ++i) {
        EXPECT_EQ(host, name) << text;
        EXPECT_EQ(same, "same") << text;
        EXPECT_EQ(number, std::to_string(i)) << text;
        EXPECT_TRUE(random.insert(bytes).second) << "drawn twice: " << text;
      }
      names.insert(name);
      std::getline(in, line);
      std::getline(in, line);
      // What another machine has written to /tmp is not seen here.
      EXPECT_EQ(line, "1") << text;
      std::getline(in, line);
      EXPECT_EQ(line, "6") << text;
    };
    take(parent_out, "cube-" + parent_id.substr(0, 8));
    for (const std::string& id : clones) take(FileText(Log(id)), "cube-" + id.substr(0, 8));
    EXPECT_EQ(names.size(), static_cast<size_t>(kClones) + 1);
    EXPECT_EQ(random.size(), 6u * (kClones + 1));
  }
  HostState::AwaitProcesses(Env("CUBE_VMM"), before.processes);
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")), before);
}

// Of a machine with several processors and memory of its own; the fork is of a clone that was
// forked itself, whose grandparent has ended.
TEST_F(ForkTest, ClonesOfClonesWithSeveralProcessors) {
  std::string from = Template({"--memory", "256", "--cpus", "2"});
  constexpr char kScript[] =
      "head -c 24000000 /dev/urandom > /root/data; md5sum < /root/data; echo up; "
      "while sleep 0.2; do md5sum < /root/data; nproc; done";
  Process parent(Command({"clone", from, "--", "/bin/sh", "-c", kScript}));
  std::string sum = parent.ReadLine() + "\n";
  ASSERT_EQ(parent.ReadLine(), "up");
  std::vector<std::string> children = Fork(*Ids().begin(), 2);
  ASSERT_EQ(children.size(), 2u);
  std::string parent_id;
  for (const std::string& id : Ids()) {
    if (id != children[0] && id != children[1]) parent_id = id;
  }
  EXPECT_EQ(Ask({"stop", parent_id}).status, 0);
  EXPECT_EQ(parent.Finish().status, 0);
  std::vector<std::string> grandchildren = Fork(children[1], 3);
  EXPECT_EQ(Ask({"stop", children[1]}).status, 0);
  grandchildren.push_back(children[0]);
  for (const std::string& id : grandchildren) {
    // A line of the pair may have been printed before the fork.
    std::string log = AwaitLines(Log(id), 5);
    EXPECT_NE(log.find(sum + "2\n" + sum + "2\n"), std::string::npos)
        << log << "\nshould have " << sum;
    EXPECT_EQ(Ask({"stop", id}).status, 0);
  }
}

TEST_F(ForkTest, ACloneIsABaseForDiffsAndForRollback) {
  std::string from = Template();
  Process parent(Command({"clone", from, "--", "/bin/sh", "-c",
                          "head -c 3000000 /dev/urandom > /tmp/data; md5sum < /tmp/data; "
                          "while sleep 0.2; do md5sum < /tmp/data; done"}));
  std::string sum = parent.ReadLine();
  std::string parent_id = *Ids().begin();
  std::string clone = Fork(parent_id, 1).at(0);
  // The parent changes; what the clone has is what was there before.
  EXPECT_EQ(Ask({"stop", parent_id}).status, 0);
  parent.Finish();
  std::string out = home_ + "/diff";
  fs::remove_all(out);
  Finished taken = Ask({"snapshot", clone, out, "--diff"});
  ASSERT_EQ(taken.status, 0) << taken.err;
  EXPECT_GT(fs::file_size(out + "/memory"), 3000000u);
  EXPECT_LT(fs::file_size(out + "/memory"), 60000000u);
  // Back to it, and to the template, which the clone shares with its parent.
  EXPECT_EQ(Ask({"rollback", clone, out}).status, 0);
  AwaitLines(Log(clone), 2);
  EXPECT_NE(FileText(Log(clone)).find(sum), std::string::npos);
  EXPECT_EQ(Ask({"stop", clone}).status, 0);
  Process restored(Command({"restore", out}));
  EXPECT_EQ(restored.ReadLine(), sum);
  EXPECT_EQ(Ask({"stop", *Ids().begin()}).status, 0);
  restored.Finish();
}

TEST_F(ForkTest, ClonesOfAPausedSandboxRunAndItStays) {
  std::string from = Template();
  Process parent(Command({"clone", from, "--", "/bin/sh", "-c",
                          "echo up; for i in 1 2 3; do read line; echo $i; done"}));
  ASSERT_EQ(parent.WaitForOutput(), "up\n");
  std::string parent_id = *Ids().begin();
  ASSERT_EQ(Ask({"pause", parent_id}).status, 0);
  // Their input is at its end.
  std::vector<std::string> clones = Fork(parent_id, 2);
  for (const std::string& id : clones) EXPECT_EQ(AwaitLines(Log(id), 3), "1\n2\n3\n");
  EXPECT_NE(Ask({"info", parent_id, "--json"}).out.find("\"state\":\"paused\""), std::string::npos);
  ASSERT_EQ(Ask({"resume", parent_id}).status, 0);
  parent.Send("\n");
  EXPECT_EQ(parent.WaitForOutput(), "1\n");
  Finished end = parent.Finish();
  EXPECT_EQ(end.out, "2\n3\n");
}

TEST_F(ForkTest, AWaitingCloneHasManyAtOnce) {
  std::string from = Template();
  Process parent(Command({"clone", from}));
  std::string parent_id = parent.ReadLine();
  std::vector<std::string> clones = Fork(parent_id, 20);
  EXPECT_EQ(std::set<std::string>(clones.begin(), clones.end()).size(), 20u);
  EXPECT_EQ(Ids().size(), 21u);
  for (const std::string& id : Ids()) EXPECT_EQ(Ask({"stop", id}).status, 0);
  parent.Finish();
  AwaitAllEnded();
  // Nobody has said anything.
  for (const std::string& id : clones) {
    AwaitGone(Log(id));
  }
}

TEST_F(ForkTest, TheLogIsBounded) {
  std::string from = Template();
  Process parent(Command(
      {"clone", from, "--", "/bin/sh", "-c", "echo up; read line; seq 1 600000; echo end"}));
  ASSERT_EQ(parent.WaitForOutput(), "up\n");
  std::string clone = Fork(*Ids().begin(), 1).at(0);
  EXPECT_EQ(parent.Finish().status, 0);
  AwaitAllEnded();
  std::string log = FileText(Log(clone));
  EXPECT_LE(log.size(), 1u << 20);
  EXPECT_LE(fs::file_size(Log(clone) + ".1"), 1u << 20);
  EXPECT_EQ(log.substr(log.size() - 11), "600000\nend\n");
}

TEST_F(ForkTest, RefusesInOneLine) {
  std::string from = Template();
  Process parent(Command({"clone", from}));
  std::string id = parent.ReadLine();
  for (const char* count : {"0", "101"}) {
    Finished refused = Ask({"fork", id, "-n", count});
    EXPECT_EQ(refused.status, 1);
    EXPECT_EQ(refused.err, std::string("cube-vmm: ") + count +
                               " clones of a sandbox at once are not between 1 and 100\n");
  }
  EXPECT_EQ(Ask({"fork", id, "-n", "many"}).status, 125);
  Finished json = Ask({"fork", id, "-n", "0", "--json"});
  EXPECT_EQ(json.out.substr(0, 20), "{\"ok\":false,\"error\":");
  EXPECT_EQ(Ask({"stop", id}).status, 0);
  parent.Finish();
  Finished gone = Ask({"fork", id, "-n", "1"});
  EXPECT_EQ(gone.status, 125);
  EXPECT_NE(gone.err.find("cannot reach "), std::string::npos) << gone.err;
}

}  // namespace
}  // namespace cube::testing
