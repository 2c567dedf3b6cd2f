// Sandboxes with a root disk, in their jails: what they write goes along with all that a node does.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/await.h"
#include "tests/envd_sandbox.h"
#include "tests/node_daemon.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

class NodeDiskTest : public ::testing::Test {
 protected:
  NodeDiskTest() : node_("[pool]\nsize = 0\n[sandbox]\nmax_chain = 3\n", DiskTemplateWords()) {
    node_.Start();
  }

  std::string Run(const std::string& id, const std::string& script) {
    const json::object info = node_.Ask("sandbox.info", id);
    agent::envd::Transcript all = RunScript(Text(Inner(info, "sandbox"), "vsock"), script);
    EXPECT_EQ(all.exit_code(), 0) << script << "\n"
                                  << all.err << json::serialize(node_.Ask("sandbox.info", id));
    if (all.out.ends_with('\n')) all.out.pop_back();
    return all.out;
  }
  // On its disk, and not only in its memory.
  void Write(const std::string& id, const std::string& text) {
    Run(id, "echo '" + text + "' > /root/note && sync && echo 3 > /proc/sys/vm/drop_caches");
  }
  std::string Read(const std::string& id) {
    return Run(id, "sync; echo 3 > /proc/sys/vm/drop_caches; cat /root/note");
  }
  void Must(const std::string& op, const std::string& id) {
    json::object answer = node_.Ask("sandbox." + op, id);
    ASSERT_TRUE(IsOk(answer)) << op << ": " << json::serialize(answer);
  }
  std::string Snapshot(const std::string& id) {
    json::object answer = node_.Ask("sandbox.snapshot", id);
    EXPECT_TRUE(IsOk(answer)) << json::serialize(answer);
    return Text(Inner(answer, "snapshot"), "id");
  }
  void RollBack(const std::string& id, const std::string& snapshot) {
    json::object answer =
        node_.Ask({{"op", "sandbox.rollback"}, {"id", id}, {"snapshot", snapshot}});
    ASSERT_TRUE(IsOk(answer)) << json::serialize(answer);
  }
  void EndAll() {
    json::object all = node_.Ask("sandbox.list");
    for (const json::value& one : all.at("sandboxes").as_array()) {
      Must("kill", Text(one.as_object(), "id"));
    }
  }

  NodeDaemon node_;
};

TEST_F(NodeDiskTest, DisksGoAlong) {
  const std::string id = node_.Create();
  ASSERT_NE(id, "");
  Write(id, "first");
  json::object forked = node_.Ask({{"op", "sandbox.fork"}, {"id", id}, {"count", 2}});
  ASSERT_TRUE(IsOk(forked)) << json::serialize(forked);
  std::vector<std::string> clones;
  for (const json::value& one : forked.at("sandboxes").as_array()) {
    clones.push_back(Text(one.as_object(), "id"));
    EXPECT_EQ(Read(clones.back()), "first");
    Write(clones.back(), clones.back());
  }
  EXPECT_EQ(Read(id), "first");
  EXPECT_EQ(Read(clones[0]), clones[0]);
  EXPECT_EQ(Read(clones[1]), clones[1]);

  const std::string snapshot = Snapshot(id);
  Write(id, "later");
  const std::string copy = node_.Create({{"snapshot", snapshot}});
  ASSERT_NE(copy, "");
  EXPECT_EQ(Read(copy), "first");
  Write(copy, "copy");
  RollBack(id, snapshot);
  EXPECT_EQ(Read(id), "first");
  Write(id, "after the rollback");
  Must("pause", id);
  Must("resume", id);
  EXPECT_EQ(Read(id), "after the rollback");
  Write(id, "after the resume");
  const std::string second = Snapshot(id);
  Write(id, "last");
  // A clone that was restored, which is what a fork in a jail makes, has the same life.
  Must("pause", clones[0]);
  Must("resume", clones[0]);
  EXPECT_EQ(Read(clones[0]), clones[0]);
  const std::string of_clone = Snapshot(clones[0]);
  const std::string copy_of_clone = node_.Create({{"snapshot", of_clone}});
  ASSERT_NE(copy_of_clone, "");
  EXPECT_EQ(Read(copy_of_clone), clones[0]);
  const std::string late = node_.Create({{"snapshot", second}});
  EXPECT_EQ(Read(late), "after the resume");
  RollBack(id, snapshot);
  EXPECT_EQ(Read(id), "first");
  EXPECT_EQ(Read(copy), "copy");

  for (const std::string& one : {snapshot, second, of_clone}) {
    EXPECT_TRUE(IsOk(node_.Ask("snapshot.delete", one)));
  }
  EndAll();
  AwaitChange(node_.home() + "/snapshots",
              [&] { return fs::is_empty(node_.home() + "/snapshots"); });
  node_.AwaitMachines(1);
}

TEST_F(NodeDiskTest, ManyRounds) {
  const std::string id = node_.Create();
  std::string text;
  for (int round = 0; round < 5; ++round) {
    SCOPED_TRACE(round);
    text = "round " + std::to_string(round);
    Write(id, text);
    const std::string snapshot = Snapshot(id);
    Write(id, "lost");
    RollBack(id, snapshot);
    EXPECT_TRUE(IsOk(node_.Ask("snapshot.delete", snapshot)));
    EXPECT_EQ(Read(id), text);
    Must("pause", id);
    Must("resume", id);
    EXPECT_EQ(Read(id), text);
  }
  // And the daemon's death.
  node_.Crash();
  node_.Start();
  EXPECT_EQ(Read(id), text);
  Must("pause", id);
  Must("resume", id);
  EXPECT_EQ(Read(id), text);
  EndAll();
  AwaitChange(node_.home() + "/snapshots",
              [&] { return fs::is_empty(node_.home() + "/snapshots"); });
}

}  // namespace
}  // namespace cube::testing
