// What a guest may take of its host, and what its neighbours notice of it.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "pool/jail/cgroups.h"
#include "tests/envd_sandbox.h"
#include "tests/node_daemon.h"

namespace cube::testing {
namespace {

namespace json = boost::json;

// Half a guest's memory and more.
constexpr char kEatMemory[] = "dd if=/dev/zero of=/dev/shm/eaten bs=1M count=450";

class NodeLimitsTest : public ::testing::Test {
 protected:
  NodeLimitsTest() : node_("[pool]\nsize = 1\n", DiskTemplateWords()) { node_.Start(); }

  std::string VsockOf(const std::string& id) {
    return Text(Inner(node_.Ask("sandbox.info", id), "sandbox"), "vsock");
  }
  // How often its cgroup had used its share of the processors.
  int64_t Throttled(const std::string& id) const {
    auto cgroups = pool::Cgroups::Open(pool::Cgroups::KeyOf(node_.home()));
    if (!cgroups.ok()) return -1;
    for (const std::string& folder : cgroups->Folders(id)) {
      std::ifstream words(folder + "/cpu.stat");
      std::string word;
      for (int64_t count; words >> word >> count;) {
        if (word == "nr_throttled") return count;
      }
    }
    return -1;
  }

  NodeDaemon node_;
};

TEST_F(NodeLimitsTest, AGuestThatEatsItsMemoryIsDeadForThatReason) {
  NodeEvents events(node_);
  const std::string id = node_.Create({{"limit_memory_mib", 200}}), other = node_.Create();
  ASSERT_NE(id, "");
  std::string error;
  RunScript(VsockOf(id), kEatMemory, &error);
  EXPECT_NE(error, "");
  EXPECT_EQ(events.Await(id, "dead"), "memory limit: it had used all 200 MiB that it may have");
  EXPECT_EQ(RunScript(VsockOf(other), "echo alive").out, "alive\n");
}

TEST_F(NodeLimitsTest, AGuestThatStaysBelowItsLimitLives) {
  const std::string id = node_.Create();
  agent::envd::Transcript eaten = RunScript(VsockOf(id), kEatMemory);
  // The guest has no more than its own; the host need not step in.
  EXPECT_EQ(RunScript(VsockOf(id), "rm -f /dev/shm/eaten; echo alive").out, "alive\n");
  EXPECT_EQ(node_.State(id), "running");
}

TEST_F(NodeLimitsTest, ProcessorsHaveALimit) {
  const std::string id = node_.Create({{"limit_cpus", 0.05}});
  EXPECT_EQ(RunScript(VsockOf(id), "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo $i").out,
            "50000\n");
  EXPECT_GE(Throttled(id), 1);
}

// Guests that take what they can get: memory to their limit, processes, a processor, their disk,
// the log, the connections to their agent.
TEST_F(NodeLimitsTest, NeighboursLiveAndAnswer) {
  const std::string quiet = node_.Create();
  ASSERT_NE(quiet, "");
  const std::vector<std::string> bad = {
      "while :; do dd if=/dev/zero of=/dev/shm/x bs=1M count=400; rm -f /dev/shm/x; done",
      "forks() { forks & forks; }; forks",
      "while :; do dd if=/dev/zero of=/root/x bs=1M count=64 oflag=direct; rm -f /root/x; done",
      "yes > /dev/ttyS0",
      "head -c 50000000 /dev/zero",
  };
  std::vector<std::string> ids;
  std::vector<std::thread> clients;
  for (const std::string& script : bad) {
    ids.push_back(node_.Create({{"limit_cpus", 0.5}}));
    ASSERT_NE(ids.back(), "");
    clients.emplace_back([path = VsockOf(ids.back()), script] {
      std::string error;  // it is killed in the end
      RunScript(path, script, &error);
    });
  }
  for (int round = 0; round < 10; ++round) {
    SCOPED_TRACE(round);
    EXPECT_EQ(RunScript(VsockOf(quiet), "echo alive").out, "alive\n");
    const std::string next = node_.Create();
    ASSERT_NE(next, "");
    EXPECT_EQ(RunScript(VsockOf(next), "echo new").out, "new\n");
    EXPECT_TRUE(IsOk(node_.Ask("sandbox.kill", next)));
  }
  // One that was taken for its greed would have left the others in peace.
  for (const std::string& id : ids) {
    EXPECT_EQ(node_.State(id), "running");
    EXPECT_TRUE(IsOk(node_.Ask("sandbox.kill", id)));
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(RunScript(VsockOf(quiet), "echo alive").out, "alive\n");
}

}  // namespace
}  // namespace cube::testing
