// The node daemon and its machines killed at any moment: nothing is lost, nothing is left behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "pool/database.h"
#include "tests/await.h"
#include "tests/node_daemon.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

int64_t Number(const json::object& object, const char* member) {
  const json::value* value = object.if_contains(member);
  return value != nullptr && value->is_int64() ? value->get_int64() : -1;
}

json::object Info(NodeDaemon* node, const std::string& id) {
  return Inner(node->Ask("sandbox.info", id), "sandbox");
}

TEST(NodeRecoveryTest, ACrashedDaemonFindsEverythingAgain) {
  NodeDaemon node("[pool]\nsize = 2\n");
  node.Start();
  node.AwaitParked(2);
  std::string running = node.Create({{"timeout_seconds", 1000}}), paused = node.Create();
  std::string short_lived = node.Create({{"timeout_seconds", 1}});
  std::string dying = node.Create();
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", paused)));
  json::object before = Info(&node, running);
  auto dying_pid = static_cast<pid_t>(Number(Info(&node, dying), "pid"));
  node.AwaitParked(2);
  node.Crash();
  // While nobody looks.
  kill(dying_pid, SIGKILL);
  node.Start();
  NodeEvents events(node);
  json::object after = Info(&node, running);
  EXPECT_EQ(Text(after, "state"), "running");
  EXPECT_EQ(Number(after, "pid"), Number(before, "pid"));
  EXPECT_EQ(Number(after, "deadline_ms"), Number(before, "deadline_ms"));
  EXPECT_EQ(node.State(paused), "paused");
  EXPECT_EQ(node.State(dying), "dead");
  EXPECT_EQ(Text(Info(&node, dying), "reason"), "its process ended without a word");
  if (node.State(short_lived) != "") events.Await(short_lived, "gone");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", paused)));
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", running)));
  // A zygote, two parked ones and one that runs: those of the daemon before are gone.
  node.AwaitParked(2);
  node.AwaitMachines(4);
}

TEST(NodeRecoveryTest, SandboxesLiveOnWithoutADaemon) {
  NodeDaemon node("[pool]\nsize = 1\n");
  node.Start();
  node.AwaitParked(1);
  std::string id = node.Create();
  node.Stop();
  node.AwaitMachines(1);
  node.Start();
  EXPECT_EQ(node.State(id), "running");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", id)));
}

// The record in the store is put to what a daemon that died at that moment would have left.
TEST(NodeRecoveryTest, HalfDoneOnesAreEndedOrUndone) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  std::vector<std::string> states = {"creating", "pausing", "snapshotting", "killing", "resuming"};
  std::map<std::string, std::string> ids;
  for (const std::string& state : states) ids[state] = node.Create();
  ids["paused"] = node.Create();
  ASSERT_TRUE(IsOk(node.Ask("sandbox.pause", ids["paused"])));
  ASSERT_TRUE(IsOk(node.Ask("sandbox.pause", ids["resuming"])));
  ASSERT_TRUE(IsOk(node.Ask("sandbox.resume", ids["resuming"])));
  node.Crash();
  {
    auto database = pool::Database::Open(node.home() + "/node/node.db").value();
    for (const std::string& state : states) {
      // One that was being resumed is still there as it was paused.
      std::string sql = "UPDATE sandboxes SET state='" + state + "'" +
                        (state == "resuming" ? ", snapshot=base" : "") + " WHERE id='" +
                        ids[state] + "'";
      ASSERT_TRUE(database.Execute(sql.c_str()).ok());
    }
    // The snapshot of a pause was published, and the machine is gone.
    std::string sql =
        "UPDATE sandboxes SET state='pausing', pending=snapshot, snapshot='' WHERE "
        "id='" +
        ids["paused"] + "'";
    ASSERT_TRUE(database.Execute(sql.c_str()).ok());
  }
  fs::create_directories(node.home() + "/snapshots/.unknown");
  fs::create_directories(node.home() + "/snapshots/unknown");
  node.Start();
  EXPECT_EQ(node.State(ids["creating"]), "");
  EXPECT_EQ(node.State(ids["killing"]), "");
  EXPECT_EQ(node.State(ids["pausing"]), "paused");
  EXPECT_EQ(node.State(ids["paused"]), "paused");
  EXPECT_EQ(node.State(ids["snapshotting"]), "running");
  EXPECT_EQ(node.State(ids["resuming"]), "paused");
  AwaitGone(node.home() + "/snapshots/unknown");
  AwaitGone(node.home() + "/snapshots/.unknown");
  for (const char* state : {"pausing", "paused", "resuming"}) {
    json::object resumed = node.Ask("sandbox.resume", ids[state]);
    EXPECT_TRUE(IsOk(resumed)) << state << json::serialize(resumed);
  }
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", ids["snapshotting"])));
}

// Until a daemon knows whose machines it finds, it ends none, whatever makes it leave.
TEST(NodeRecoveryTest, ADaemonThatLeavesBeforeItHasRecoveredEndsNoSandbox) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  std::string running = node.Create({{"timeout_seconds", 1000}}), resuming = node.Create();
  json::object before = Info(&node, running);
  ASSERT_TRUE(IsOk(node.Ask("sandbox.pause", resuming)));
  node.Crash();
  {
    auto database = pool::Database::Open(node.home() + "/node/node.db").value();
    const std::string sql = "UPDATE sandboxes SET state='resuming' WHERE id='" + resuming + "'";
    ASSERT_TRUE(database.Execute(sql.c_str()).ok());
    ASSERT_TRUE(database
                    .Execute("CREATE TRIGGER full BEFORE INSERT ON sandboxes BEGIN SELECT "
                             "RAISE(ABORT, 'no room'); END")
                    .ok());
    ASSERT_TRUE(database
                    .Execute("CREATE TRIGGER full2 BEFORE UPDATE ON sandboxes BEGIN SELECT "
                             "RAISE(ABORT, 'no room'); END")
                    .ok());
  }
  Finished failed = node.TryToStart();
  EXPECT_NE(failed.status, 0);
  EXPECT_NE((failed.out + failed.err).find("no room"), std::string::npos)
      << failed.out << failed.err;
  {
    auto database = pool::Database::Open(node.home() + "/node/node.db").value();
    ASSERT_TRUE(database.Execute("DROP TRIGGER full").ok());
    ASSERT_TRUE(database.Execute("DROP TRIGGER full2").ok());
  }
  node.Start();
  json::object after = Info(&node, running);
  EXPECT_EQ(Text(after, "state"), "running");
  EXPECT_EQ(Number(after, "pid"), Number(before, "pid"));
  EXPECT_EQ(node.State(resuming), "paused");
}

TEST(NodeRecoveryTest, AfterARestartOfTheHostPausedOnesAreThere) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  std::string running = node.Create(), paused = node.Create();
  ASSERT_TRUE(IsOk(node.Ask("sandbox.pause", paused)));
  node.Crash();
  for (pid_t pid : node.Machines()) kill(pid, SIGKILL);
  node.AwaitMachines(0);
  ASSERT_TRUE(pool::Database::Open(node.home() + "/node/node.db")
                  .value()
                  .Execute("UPDATE sandboxes SET boot_id='another'")
                  .ok());
  node.Start();
  EXPECT_EQ(node.State(running), "dead");
  EXPECT_EQ(Text(Info(&node, running), "reason"), "the host was restarted");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", paused)));
}

TEST(NodeRecoveryTest, MachinesAndZygotesThatDie) {
  NodeDaemon node("[pool]\nsize = 1\n");
  node.Start();
  node.AwaitParked(1);
  NodeEvents events(node);
  std::string id = node.Create();
  kill(static_cast<pid_t>(Number(Info(&node, id), "pid")), SIGKILL);
  std::string reason = events.Await(id, "dead");
  EXPECT_TRUE(reason == "its process was killed by signal 9" ||
              reason == "its process ended without a word")
      << reason;
  EXPECT_EQ(Text(node.Ask("sandbox.pause", id), "error"), "sandbox " + id + " is dead: " + reason);
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", id)));
  // All that is parked, and the zygote.
  node.AwaitParked(1);
  for (pid_t pid : node.Machines()) kill(pid, SIGKILL);
  EXPECT_NE(node.Create(), "");
  node.AwaitParked(1);
  EXPECT_NE(node.Create(), "");
}

// A disk without room for the store: what cannot be remembered does not happen.
TEST(NodeRecoveryTest, AStoreThatCannotGrow) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  std::string id = node.Create();
  ASSERT_NE(id, "");
  rlimit limit = {4096, RLIM_INFINITY};
  ASSERT_EQ(prlimit(node.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  json::object refused = node.Ask({{"op", "sandbox.create"}, {"template", "t"}});
  EXPECT_FALSE(IsOk(refused));
  EXPECT_NE(Text(refused, "error").find("the store: "), std::string::npos);
  refused = node.Ask("sandbox.pause", id);
  EXPECT_NE(Text(refused, "error").find("the store: "), std::string::npos);
  EXPECT_EQ(node.State(id), "running");
  // The zygote and the one that was there.
  node.AwaitMachines(2);
  limit.rlim_cur = RLIM_INFINITY;
  ASSERT_EQ(prlimit(node.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", id)));
  EXPECT_NE(node.Create(), "");
}

TEST(NodeRecoveryTest, OnlyOneDaemonInAFolder) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  Finished second = RunProcess({Env("CUBED"), "--home", node.home(), "--no-jail"});
  EXPECT_EQ(second.status, 1);
  EXPECT_NE(second.err.find("another cubed runs in " + node.home()), std::string::npos);
  EXPECT_NE(node.Create(), "");
}

}  // namespace
}  // namespace cube::testing
