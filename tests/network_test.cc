// The network fabric with real machines: what clones may reach, and a node whose sandboxes have it.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <thread>

#include "net/testing/fabric_fixture.h"
#include "tests/node_daemon.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::net::testing {
namespace {

namespace json = boost::json;
using cube::testing::CloneVmm;
using cube::testing::Finished;
using cube::testing::Inner;
using cube::testing::IsOk;
using cube::testing::NodeDaemon;
using cube::testing::Process;
using cube::testing::RunProcess;
using cube::testing::Text;

class NetworkTest : public FabricFixture {
 protected:
  // A clone with the TAP of the sandbox `id`, which the policy is in force for, that runs `script`.
  std::vector<std::string> Clone(const std::string& id, const Policy& policy,
                                 const std::string& script) {
    std::string tap = Reserve(id, policy);
    return CloneVmm({"--net", "tap=" + tap + ",mac=" + kGuestMac + ",ip=" + kGuestAddress +
                                  ",gw=" + kGatewayAddress + ",dns=" + kGatewayAddress},
                    {"/bin/sh", "-c", script});
  }
  std::string Reserve(const std::string& id, const Policy& policy) {
    Sandbox(id, policy);  // the descriptor is closed: the clone opens the TAP by its name
    return fabric_->TapName(*fabric_->SlotOf(id));
  }
};

// Sends without an end to whoever connects.
class Source {
 public:
  explicit Source(UniqueFd listener)
      : listener_(std::move(listener)), thread_([this] {
          UniqueFd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
          std::vector<char> bytes(1 << 16);
          for (ssize_t n; (n = send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL)) > 0;) {
            sent_ += static_cast<uint64_t>(n);
            sent_.notify_all();
          }
        }) {}
  ~Source() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  void AwaitSent(uint64_t bytes) {
    for (uint64_t sent = sent_; sent < bytes; sent = sent_) sent_.wait(sent);
  }

 private:
  UniqueFd listener_;
  std::atomic<uint64_t> sent_ = 0;
  std::thread thread_;
};

TEST_F(NetworkTest, AClonesReach) {
  EchoServer allowed(world_->Socket(SOCK_STREAM, kWorld, 80));
  EchoServer denied(world_->Socket(SOCK_STREAM, kOther, 80));
  Finished run = RunProcess(Clone("one", Lists({kWorld}, {"0.0.0.0/0"}, true),
                                  "echo hello | nc 192.0.2.80 80; "
                                  "echo hello | nc 198.51.100.7 80 || echo refused; "
                                  "echo hello | nc 169.254.169.254 80 || echo refused; "
                                  "ping -c 1 -W 10 192.0.2.80 > /dev/null && echo pong; "
                                  "ip -6 addr show dev eth0 2> /dev/null | grep -c global"));
  EXPECT_EQ(run.out, "hello\nrefused\nrefused\npong\n0\n") << run.err;
  EXPECT_EQ(denied.served(), 0u);
}

TEST_F(NetworkTest, APolicyThatChangesWhileADownloadRuns) {
  Source source(world_->Socket(SOCK_STREAM, kWorld, 80));
  Process process(Clone("one", Policy(), "nc 192.0.2.80 80 < /dev/null > /dev/null; echo ended"));
  source.AwaitSent(1 << 20);
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({}, {kWorld}, true)).ok());
  Finished run = process.Finish();
  EXPECT_EQ(run.out, "ended\n") << run.err;
}

class NetworkOfNodeTest : public FabricFixture {
 protected:
  static constexpr char kConfig[] =
      "[pool]\nsize = 1\n[network]\nenabled = true\nprefix = \"n\"\ntaps = 2\n";

  // Only the namespaces: the fabric is the node's.
  void SetUp() override {}
  void TearDown() override {
    FabricOptions options;
    options.prefix = "n";
    options.pins = "/sys/fs/bpf/n";
    options.uplink = "up";
    Fabric::Remove(options);
  }
  static json::object Network(NodeDaemon* node, const std::string& id) {
    json::object answer = node->Ask("net.show", id);
    const json::value* networks = answer.if_contains("networks");
    if (networks == nullptr || networks->as_array().empty()) return {};
    return networks->as_array()[0].as_object();
  }
  // What the sandbox's kernel says to a connection from the host, to a port that nobody listens at.
  static int Knock(NodeDaemon* node, const std::string& id) {
    std::string address = Text(Network(node, id), "host_address");
    return address.empty() ? ENODEV : Connect(host_->Socket(SOCK_STREAM), address, 8000);
  }
};

TEST_F(NetworkOfNodeTest, SandboxesHaveOneFromStartToEnd) {
  NodeDaemon node(kConfig, {"--net", "cube"});
  node.Start();
  node.AwaitParked(1);
  std::string id = node.Create({{"allow", {"192.0.2.0/24"}}, {"deny", {"0.0.0.0/0"}}});
  ASSERT_FALSE(id.empty());
  json::object network = Network(&node, id);
  EXPECT_FALSE(network.at("internet").as_bool());
  EXPECT_EQ(json::serialize(network.at("allow")), "[\"192.0.2.0/24\"]");
  EXPECT_EQ(Knock(&node, id), ECONNREFUSED);
  // Changed, and refused.
  json::object change = {{"op", "net.policy"}, {"id", id}, {"allow", {"pypi.org"}}};
  EXPECT_EQ(Text(node.Ask(change), "code"), "invalid");
  change["internet"] = false;
  EXPECT_TRUE(IsOk(node.Ask(change)));
  EXPECT_EQ(json::serialize(Network(&node, id).at("allow")), "[\"pypi.org\"]");
  // A port of the host's.
  EXPECT_TRUE(IsOk(node.Ask({{"op", "net.map"}, {"id", id}, {"host_port", 18000}, {"port", 80}})));
  EXPECT_EQ(Connect(world_->Socket(SOCK_STREAM), kHost, 18000), ECONNREFUSED);
  EXPECT_GT(Network(&node, id).at("packets_in").to_number<uint64_t>(), 1u);
  // A copy has one of its own, with the same policy.
  json::object forked = node.Ask({{"op", "sandbox.fork"}, {"id", id}, {"count", 1}});
  ASSERT_TRUE(IsOk(forked)) << json::serialize(forked);
  std::string copy = Text(forked.at("sandboxes").as_array()[0].as_object(), "id");
  EXPECT_EQ(json::serialize(Network(&node, copy).at("allow")), "[\"pypi.org\"]");
  EXPECT_NE(Text(Network(&node, copy), "tap"), Text(Network(&node, id), "tap"));
  EXPECT_EQ(Knock(&node, copy), ECONNREFUSED);
  // None while it is paused, and the same after.
  ASSERT_TRUE(IsOk(node.Ask("sandbox.pause", id)));
  EXPECT_TRUE(Network(&node, id).empty());
  ASSERT_TRUE(IsOk(node.Ask("sandbox.resume", id)));
  EXPECT_EQ(json::serialize(Network(&node, id).at("allow")), "[\"pypi.org\"]");
  EXPECT_EQ(Knock(&node, id), ECONNREFUSED);
  // A daemon that was killed.
  node.Crash();
  node.Start();
  EXPECT_EQ(json::serialize(Network(&node, id).at("allow")), "[\"pypi.org\"]");
  EXPECT_EQ(Knock(&node, id), ECONNREFUSED);
  EXPECT_TRUE(IsOk(node.Ask("net.stats")));
  for (const std::string& each : {id, copy}) EXPECT_TRUE(IsOk(node.Ask("sandbox.kill", each)));
  EXPECT_TRUE(node.Ask("net.list").at("networks").as_array().empty());
  node.Stop();
}

}  // namespace
}  // namespace cube::net::testing
