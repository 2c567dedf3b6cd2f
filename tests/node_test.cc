// The node daemon with real machines: sandboxes' lives from create to kill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

#include "tests/await.h"
#include "tests/node_daemon.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

size_t Entries(const std::string& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

int64_t Number(const json::object& object, const char* member) {
  const json::value* value = object.if_contains(member);
  return value != nullptr && value->is_int64() ? value->get_int64() : -1;
}

const json::object& PoolOf(const json::object& answer) {
  return answer.at("pools").as_array().at(0).as_object();
}

constexpr char kSmallPool[] = "[pool]\nsize = 2\n";

TEST(NodeTest, SandboxesAreMadeFromTheWarmAndEnd) {
  NodeDaemon node(kSmallPool);
  node.Start();
  node.AwaitParked(2);
  json::object answer = node.Ask({{"op", "sandbox.create"},
                                  {"template", "t"},
                                  {"tag", "x"},
                                  {"metadata", {{"user", "me"}}},
                                  {"environment", {"A=1"}},
                                  {"token", "secret"},
                                  {"timeout_seconds", 100}});
  ASSERT_TRUE(IsOk(answer)) << json::serialize(answer);
  EXPECT_EQ(Text(answer, "tag"), "x");
  EXPECT_TRUE(answer.at("warm").as_bool());
  const json::object& sandbox = Inner(answer, "sandbox");
  std::string id = Text(sandbox, "id");
  EXPECT_EQ(Text(sandbox, "state"), "running");
  EXPECT_EQ(Text(Inner(sandbox, "metadata"), "user"), "me");
  EXPECT_EQ(json::serialize(answer).find("secret"), std::string::npos);
  // More than there are parked ones: the others are made.
  std::set<std::string> ids = {id};
  for (int i = 0; i < 4; ++i) ids.insert(node.Create());
  EXPECT_EQ(ids.size(), 5u);
  EXPECT_EQ(node.Ask("sandbox.list").at("sandboxes").as_array().size(), 5u);
  json::object metrics = node.Ask("sandbox.metrics", id);
  EXPECT_GT(Number(metrics, "memory_bytes"), 0);
  EXPECT_TRUE(IsOk(node.Ask("sandbox.logs", id)));
  for (const std::string& one : ids) EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", one)));
  json::object gone = node.Ask("sandbox.kill", id);
  EXPECT_EQ(Text(gone, "code"), "not_found");
  EXPECT_EQ(Text(gone, "error"), "there is no sandbox \"" + id + "\"");
  node.AwaitParked(2);
  json::object pool = node.Ask("pool.status");
  EXPECT_GE(Number(PoolOf(pool), "hits"), 2);
  EXPECT_EQ(Number(PoolOf(pool), "failed"), 0);
  // The zygote, and what is parked; nothing of those that have ended.
  node.AwaitMachines(3);
  EXPECT_EQ(Entries(node.home() + "/snapshots"), 0u);
  node.Stop();
  node.AwaitMachines(0);
}

TEST(NodeTest, ManyAtOnce) {
  NodeDaemon node("[pool]\nsize = 5\n");
  node.Start();
  node.AwaitParked(5);
  constexpr int kClients = 20;
  std::vector<std::string> ids(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&node, &id = ids[static_cast<size_t>(i)]] { id = node.Create(); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), size_t{kClients});
  EXPECT_FALSE(std::count(ids.begin(), ids.end(), ""));
  clients.clear();
  // Requests on one: each is carried out, one after another.
  std::atomic<int> paused = 0, conflicts = 0;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      json::object answer = node.Ask("sandbox.pause", ids[0]);
      ++(IsOk(answer) ? paused : conflicts);
      if (!IsOk(answer)) {
        EXPECT_EQ(Text(answer, "code"), "conflict");
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(paused, 1);
  EXPECT_EQ(conflicts, 3);
}

TEST(NodeTest, PausedOnesTakeNoProcessAndGoOn) {
  NodeDaemon node("[pool]\nsize = 0\n[sandbox]\nmax_chain = 3\n");
  node.Start();
  std::string id = node.Create();
  node.AwaitMachines(2);
  // More often than a chain may be long.
  for (int i = 0; i < 5; ++i) {
    json::object paused = node.Ask("sandbox.pause", id);
    ASSERT_TRUE(IsOk(paused)) << json::serialize(paused);
    EXPECT_EQ(Text(Inner(paused, "sandbox"), "state"), "paused");
    node.AwaitMachines(1);
    EXPECT_LE(Entries(node.home() + "/snapshots"), 3u);
    json::object resumed = node.Ask(i % 2 == 0 ? "sandbox.resume" : "sandbox.connect", id);
    ASSERT_TRUE(IsOk(resumed)) << json::serialize(resumed);
    EXPECT_EQ(Text(Inner(resumed, "sandbox"), "state"), "running");
    node.AwaitMachines(2);
  }
  EXPECT_EQ(Text(node.Ask("sandbox.resume", id), "error"),
            "sandbox " + id + " is running, not paused");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", id)));
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", id)));
  AwaitChange(node.home() + "/snapshots", [&] { return Entries(node.home() + "/snapshots") == 0; });
  // Its folder goes once its process has.
  AwaitChange(node.home() + "/node/boxes",
              [&] { return !fs::exists(node.home() + "/node/boxes/" + id); });
}

TEST(NodeTest, TimeIsOver) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  NodeEvents events(node);
  std::string killed = node.Create({{"timeout_seconds", 1}});
  std::string paused = node.Create({{"timeout_seconds", 1}, {"on_timeout", "pause"}});
  std::string longer = node.Create({{"timeout_seconds", 1}});
  EXPECT_TRUE(
      IsOk(node.Ask({{"op", "sandbox.timeout"}, {"id", longer}, {"timeout_seconds", 1000}})));
  bool gone = false, frozen = false;  // which is the first is not said
  events.AwaitAny([&](const json::object& event) {
    gone |= Text(event, "id") == killed && Text(event, "state") == "gone";
    frozen |= Text(event, "id") == paused && Text(event, "state") == "paused";
    return gone && frozen;
  });
  EXPECT_EQ(node.State(killed), "");
  EXPECT_EQ(node.State(longer), "running");
  // A time of its own once it goes on.
  EXPECT_TRUE(
      IsOk(node.Ask({{"op", "sandbox.connect"}, {"id", paused}, {"timeout_seconds", 1000}})));
  EXPECT_EQ(node.State(paused), "running");
  json::object refused =
      node.Ask({{"op", "sandbox.timeout"}, {"id", longer}, {"timeout_seconds", 86401}});
  EXPECT_EQ(Text(refused, "error"), "a timeout of 86401 s is more than the 86400 allowed here");
  // At once.
  EXPECT_TRUE(IsOk(node.Ask({{"op", "sandbox.timeout"}, {"id", longer}, {"timeout_seconds", 0}})));
  events.Await(longer, "gone");
}

TEST(NodeTest, ForksSnapshotsAndRollbacks) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  std::string id = node.Create({{"metadata", {{"k", "v"}}}});
  json::object forked = node.Ask({{"op", "sandbox.fork"}, {"id", id}, {"count", 3}});
  ASSERT_TRUE(IsOk(forked)) << json::serialize(forked);
  ASSERT_EQ(forked.at("sandboxes").as_array().size(), 3u);
  std::string clone = Text(forked.at("sandboxes").as_array()[0].as_object(), "id");
  EXPECT_EQ(Text(Inner(Inner(node.Ask("sandbox.info", clone), "sandbox"), "metadata"), "k"), "v");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", clone)));
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", clone)));
  json::object taken = node.Ask({{"op", "sandbox.snapshot"}, {"id", id}, {"name", "first"}});
  ASSERT_TRUE(IsOk(taken)) << json::serialize(taken);
  std::string snapshot = Text(Inner(taken, "snapshot"), "id");
  std::string copy = node.Create({{"snapshot", snapshot}});
  ASSERT_NE(copy, "");
  EXPECT_NE(copy, id);
  json::object rollback = {{"op", "sandbox.rollback"}, {"id", id}, {"snapshot", snapshot}};
  json::object rolled = node.Ask(rollback);
  ASSERT_TRUE(IsOk(rolled)) << json::serialize(rolled);
  // Its memory is a mapping of the snapshot from here on, which goes once nobody needs it.
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", id)));
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", id)));
  json::object listed = node.Ask("snapshot.list");
  ASSERT_EQ(listed.at("snapshots").as_array().size(), 1u);
  EXPECT_EQ(Text(listed.at("snapshots").as_array()[0].as_object(), "name"), "first");
  EXPECT_TRUE(IsOk(node.Ask("snapshot.delete", snapshot)));
  EXPECT_EQ(Text(node.Ask("snapshot.delete", snapshot), "code"), "not_found");
  EXPECT_EQ(Text(node.Ask(rollback), "code"), "not_found");
  EXPECT_TRUE(fs::exists(node.home() + "/snapshots/" + snapshot));
  json::object all = node.Ask("sandbox.list");
  for (const json::value& one : all.at("sandboxes").as_array()) {
    EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", Text(one.as_object(), "id"))));
  }
  AwaitChange(node.home() + "/snapshots", [&] { return Entries(node.home() + "/snapshots") == 0; });
  node.AwaitMachines(1);
}

TEST(NodeTest, RefusesInOneLine) {
  NodeDaemon node(
      "[pool]\nsize = 0\n[capacity]\nmemory_mib = 300\nmemory_overcommit = 1\n"
      "max_sandboxes = 3\n");
  node.Start();
  auto error = [&](const json::object& request) { return Text(node.Ask(request), "error"); };
  EXPECT_EQ(error({{"op", "dance"}}), "unknown operation \"dance\"");
  EXPECT_EQ(error({{"op", "sandbox.create"}}),
            "a sandbox is created from either a template or a snapshot");
  EXPECT_EQ(error({{"op", "sandbox.create"}, {"template", "u"}}), "there is no template \"u\"");
  EXPECT_EQ(error({{"op", "sandbox.create"}, {"template", "t"}, {"x", 1}}),
            "\"x\" is not a field of this request");
  EXPECT_EQ(error({{"op", "sandbox.create"}, {"template", "t"}, {"environment", {"A"}}}),
            "\"A\" is not NAME=VALUE");
  EXPECT_EQ(error({{"op", "sandbox.list"}, {"state", "dancing"}}), "\"dancing\" is not a state");
  EXPECT_EQ(error({{"op", "sandbox.logs"}, {"id", "none"}}), "there is no sandbox \"none\"");
  std::string first = node.Create(), second = node.Create();
  EXPECT_EQ(error({{"op", "sandbox.logs"}, {"id", first}, {"cursor", "x"}}),
            "\"x\" is not a cursor");
  json::object full = node.Ask({{"op", "sandbox.create"}, {"template", "t"}});
  EXPECT_EQ(Text(full, "code"), "no_capacity");
  EXPECT_EQ(Text(full, "error"),
            "no capacity: guests have 256 MiB of the 300 MiB they may have together, and this one "
            "needs 128");
  // A paused one has none.
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", first)));
  std::string third = node.Create();
  EXPECT_NE(third, "");
  EXPECT_EQ(Text(node.Ask("sandbox.resume", first), "code"), "no_capacity");
  EXPECT_EQ(node.State(first), "paused");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", second)));
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", first)));
  // A pool takes nothing that a create may need, and gives back what it has.
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", third)));
}

TEST(NodeTest, APoolMakesRoom) {
  NodeDaemon node("[pool]\nsize = 2\n[capacity]\nmemory_mib = 400\nmemory_overcommit = 1\n");
  node.Start();
  // A third would leave no room for a create.
  node.AwaitParked(2);
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.insert(node.Create());
  EXPECT_EQ(ids.count(""), 0u);
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_EQ(Text(node.Ask({{"op", "sandbox.create"}, {"template", "t"}}), "code"), "no_capacity");
}

TEST(NodeTest, ATemplateIsBuiltAnewAndRemoved) {
  NodeDaemon node(kSmallPool);
  node.Start();
  node.AwaitParked(2);
  NodeEvents events(node);
  std::string before = node.Create();
  ASSERT_EQ(setenv("CUBE_HOME", node.home().c_str(), 1), 0);
  std::string folder = node.home() + "/templates/";
  ASSERT_EQ(RunProcess({Env("CUBE_VMM"), "template", "build", "u", "--kernel", Env("CUBE_KERNEL"),
                        "--initrd", Env("CUBE_INITRD")})
                .status,
            0);
  unsetenv("CUBE_HOME");
  events.AwaitAny([](const json::object& event) {
    return Text(event, "event") == "zygote" && Text(event, "template") == "u";
  });
  EXPECT_NE(node.Create({{"template", "u"}}), "");
  // In one step, as a build does it.
  fs::rename(folder + "t", node.home() + "/old");
  fs::rename(folder + "u", folder + "t");
  events.AwaitAny([](const json::object& event) {
    return Text(event, "event") == "zygote" && Text(event, "template") == "t";
  });
  node.AwaitParked(2);
  EXPECT_NE(node.Create(), "");
  EXPECT_EQ(node.State(before), "running");
  EXPECT_EQ(Text(node.Ask({{"op", "sandbox.create"}, {"template", "u"}}), "code"), "not_found");
}

TEST(NodeTest, DrainWaitsForTheLastAndEnds) {
  NodeDaemon node(kSmallPool);
  node.Start();
  NodeEvents events(node);
  std::string first = node.Create(), second = node.Create();
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", second)));
  std::thread drain([&node] {
    Finished down = RunProcess({Env("CUBE"), "--home", node.home(), "down", "--mode", "wait"});
    EXPECT_EQ(down.status, 0) << down.err;
  });
  events.AwaitAny([](const json::object& event) { return Text(event, "change") == "draining"; });
  // It takes no more, and lets those go on that there are.
  EXPECT_EQ(Text(node.Ask({{"op", "sandbox.create"}, {"template", "t"}}), "code"), "draining");
  EXPECT_EQ(node.State(first), "running");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", first)));
  drain.join();
  node.AwaitEnd();
  node.AwaitMachines(0);
  // Nor is anything left of its cgroups.
  EXPECT_THAT(node.Cgroups(), ::testing::IsEmpty());
  node.Start();
  EXPECT_EQ(node.State(second), "paused");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", second)));
}

TEST(NodeTest, DrainPausesAllAndEnds) {
  NodeDaemon node(kSmallPool);
  node.Start();
  std::string first = node.Create(), second = node.Create();
  EXPECT_TRUE(IsOk(node.Ask("sandbox.pause", second)));
  json::object drained = node.Ask("node.drain");
  EXPECT_TRUE(IsOk(drained)) << json::serialize(drained);
  node.AwaitEnd();
  node.AwaitMachines(0);
  EXPECT_THAT(node.Cgroups(), ::testing::IsEmpty());
  node.Start();
  EXPECT_EQ(node.State(first), "paused");
  EXPECT_EQ(node.State(second), "paused");
  EXPECT_TRUE(IsOk(node.Ask("sandbox.resume", first)));
}

}  // namespace
}  // namespace cube::testing
