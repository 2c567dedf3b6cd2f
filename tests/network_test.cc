// The network fabric with real machines: what clones may reach, and a node whose sandboxes have it.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

#include "base/result.h"
#include "net/testing/fabric_fixture.h"
#include "net/testing/name_server.h"
#include "tests/envd_sandbox.h"
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
  uint64_t sent() const { return sent_; }
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

// A node in the host's namespace: with the jail, and without it.
class NodeNetworkTest : public FabricFixture, public ::testing::WithParamInterface<bool> {
 protected:
  using Client = cube::agent::envd::SandboxClient;
  using Object = json::object;

  // The fabric is the node's.
  void SetUp() override {
    const std::string vsock = Format("/tmp/network-test-%d.vsock", getpid());
    node_.emplace(
        "[pool]\nsize = 1\n[network]\nenabled = true\nprefix = \"n\"\ntaps = 2\n"
        "dns = [\"192.0.2.80\"]\n" +
            more_,
        std::vector<std::string>{"--net", "cube", "--vsock", vsock});
    node_->SetJail(GetParam());
    node_->Start();
    node_->AwaitParked(1);
  }
  void TearDown() override {
    node_.reset();
    FabricOptions options;
    options.prefix = "n";
    options.pins = "/sys/fs/bpf/n";
    options.uplink = "up";
    Fabric::Remove(options);
  }

  Object Network(const std::string& id) {
    Object answer = node_->Ask("net.show", id);
    const json::value* networks = answer.if_contains("networks");
    if (networks == nullptr || networks->as_array().empty()) return {};
    return networks->as_array()[0].as_object();
  }
  std::string AllowedTo(const std::string& id) {
    Object network = Network(id);
    return network.empty() ? "nothing" : json::serialize(network.at("allow"));
  }
  // Begins a script in the guest.
  Client Begin(const std::string& id, const std::string& script) {
    std::string vsock = Text(Inner(node_->Ask("sandbox.info", id), "sandbox"), "vsock");
    UniqueFd fd = cube::testing::ConnectGuestPort(vsock, 49983);
    EXPECT_TRUE(fd.valid()) << vsock;
    Client client(std::move(fd));
    EXPECT_TRUE(client.Open("/process.Process/Start",
                            cube::agent::envd::Shell(script, ",\"stdin\":false"),
                            {{"Authorization", "Basic cm9vdDo="}}));
    return client;
  }
  // What it prints.
  std::string InGuest(const std::string& id, const std::string& script) {
    Client client = Begin(id, script);
    auto all = cube::agent::envd::ReadEvents(&client);
    EXPECT_EQ(client.error(), "");
    return all.out + all.err;
  }
  // What the guest's kernel says to a connection from the host, to a port that nobody listens at.
  int Knock(const std::string& id) {
    std::string address = Text(Network(id), "host_address");
    return address.empty() ? ENODEV : Connect(host_->Socket(SOCK_STREAM), address, 8000);
  }
  // It reaches what it may, and no more, and the host reaches it.
  void ExpectConnected(const std::string& id) {
    EXPECT_EQ(InGuest(id, kReach), "hello\nrefused\nrefused\n");
    EXPECT_EQ(Knock(id), ECONNREFUSED);
  }
  int64_t FreeTaps() { return node_->Ask("net.stats").at("free_taps").to_number<int64_t>(); }

  static constexpr char kReach[] =
      "echo hello | nc 192.0.2.80 80; "
      "echo hello | nc 198.51.100.7 80 2> /dev/null || echo refused; "
      "echo hello | nc 169.254.169.254 80 2> /dev/null || echo refused";
  static Object Some() { return {{"allow", {"192.0.2.0/24"}}, {"deny", {"0.0.0.0/0"}}}; }

  std::string more_;  // of [network]
  std::optional<NodeDaemon> node_;
};

// A host that cannot have the fabric: its sandboxes have no network rather than an open one.
class NodeWithoutNetworkTest : public NodeNetworkTest {
 protected:
  void SetUp() override {
    more_ = "uplink = \"nowhere\"\n";
    NodeNetworkTest::SetUp();
  }
};

INSTANTIATE_TEST_SUITE_P(Jail, NodeWithoutNetworkTest, ::testing::Values(true),
                         [](const auto&) { return "With"; });

TEST_P(NodeWithoutNetworkTest, LinksAreDown) {
  std::string id = node_->Create(Some());
  ASSERT_FALSE(id.empty());
  EXPECT_EQ(InGuest(id, "cat /sys/class/net/eth0/carrier"), "0\n");
  EXPECT_EQ(Text(node_->Ask("net.list"), "error"), "this node's sandboxes have no network");
  std::ifstream log(node_->home() + "/cubed.log");
  std::string text((std::istreambuf_iterator<char>(log)), {});
  EXPECT_NE(text.find("SANDBOXES HAVE NO NETWORK: network.uplink: there is no Ethernet interface "
                      "\"nowhere\"\n"),
            std::string::npos)
      << text;
}

INSTANTIATE_TEST_SUITE_P(Jail, NodeNetworkTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "With" : "Without"; });

TEST_P(NodeNetworkTest, FromStartToEnd) {
  EchoServer allowed(world_->Socket(SOCK_STREAM, kWorld, 80));
  EchoServer denied(world_->Socket(SOCK_STREAM, kOther, 80));
  std::string id = node_->Create(Some());
  ASSERT_FALSE(id.empty());
  EXPECT_FALSE(Network(id).at("internet").as_bool());
  ExpectConnected(id);
  // A copy has one of its own, with the same policy.
  Object forked = node_->Ask({{"op", "sandbox.fork"}, {"id", id}, {"count", 1}});
  ASSERT_TRUE(IsOk(forked)) << json::serialize(forked);
  std::string copy = Text(forked.at("sandboxes").as_array()[0].as_object(), "id");
  EXPECT_NE(Text(Network(copy), "tap"), Text(Network(id), "tap"));
  ExpectConnected(copy);
  // So does what goes on from a snapshot, with a policy of its own.
  Object taken = node_->Ask("sandbox.snapshot", id);
  ASSERT_TRUE(IsOk(taken)) << json::serialize(taken);
  std::string snapshot = Text(Inner(taken, "snapshot"), "id");
  ExpectConnected(id);
  Object request = Some();
  request["snapshot"] = snapshot;
  std::string restored = node_->Create(request);
  ASSERT_FALSE(restored.empty());
  ExpectConnected(restored);
  ASSERT_TRUE(IsOk(node_->Ask({{"op", "sandbox.rollback"}, {"id", id}, {"snapshot", snapshot}})));
  ExpectConnected(id);
  // None while it is paused, and the same after.
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.pause", id)));
  EXPECT_EQ(AllowedTo(id), "nothing");
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.resume", id)));
  ExpectConnected(id);
  // A daemon that was killed.
  node_->Crash();
  node_->Start();
  for (const std::string& each : {id, copy, restored}) {
    EXPECT_EQ(AllowedTo(each), "[\"192.0.2.0/24\"]");
    ExpectConnected(each);
  }
  // Each TAP is free again.
  const int64_t before = FreeTaps();
  for (const std::string& each : {id, copy, restored}) {
    EXPECT_TRUE(IsOk(node_->Ask("sandbox.kill", each)));
  }
  EXPECT_TRUE(node_->Ask("net.list").at("networks").as_array().empty());
  EXPECT_GE(FreeTaps(), before + 3);
  std::string another = node_->Create(Some());
  ExpectConnected(another);
  EXPECT_EQ(denied.served(), 0u);
}

TEST_P(NodeNetworkTest, APolicyThatChangesWhileADownloadRuns) {
  Source source(world_->Socket(SOCK_STREAM, kWorld, 80));
  std::string id = node_->Create();
  Client download =
      Begin(id, "nc 192.0.2.80 80 < /dev/null > /dev/null; echo ended; echo | nc 192.0.2.80 80");
  source.AwaitSent(1 << 20);
  // Packets flow while there is no daemon, and while the next one comes.
  node_->Crash();
  source.AwaitSent(source.sent() + (1 << 22));
  node_->Start();
  source.AwaitSent(source.sent() + (1 << 22));
  Object change = {{"op", "net.policy"}, {"id", id}, {"allow", {"pypi.org"}}};
  EXPECT_EQ(Text(node_->Ask(change), "code"), "invalid");
  change["internet"] = false;
  EXPECT_TRUE(IsOk(node_->Ask(change)));
  auto all = cube::agent::envd::ReadEvents(&download);
  EXPECT_EQ(all.out, "ended\n") << all.err;
  EXPECT_NE(all.exit_code(), 0);
  EXPECT_EQ(AllowedTo(id), "[\"pypi.org\"]");
}

TEST_P(NodeNetworkTest, NamesAndPorts) {
  NameServer names(*world_);
  EchoServer web(world_->Socket(SOCK_STREAM, kWorld, 80));
  EchoServer other(world_->Socket(SOCK_STREAM, kOther, 80));
  std::string id = node_->Create({{"allow", {"*.example.com"}}, {"deny", {"0.0.0.0/0"}}});
  auto get = [](const std::string& name, const std::string& host) {
    return "printf 'GET / HTTP/1.1\\r\\nHost: " + host + "\\r\\n\\r\\n' | nc " + name +
           " 80 2> /dev/null | grep Host || echo refused; ";
  };
  EXPECT_EQ(InGuest(id, get("good.example.com", "good.example.com") +
                            get("good.example.com", "evil.example.net") +
                            get("evil.example.net", "evil.example.net") +
                            get("metadata.example.com", "metadata.example.com") +
                            get("198.51.100.7", "good.example.com")),
            "Host: good.example.com\r\nrefused\nrefused\nrefused\nrefused\n");
  EXPECT_EQ(other.served(), 0u);
}

TEST_P(NodeNetworkTest, PortsOutliveAPause) {
  std::string id = node_->Create(), other = node_->Create();
  auto map = [&](const std::string& sandbox, int host_port) {
    return node_->Ask({{"op", "net.map"}, {"id", sandbox}, {"host_port", host_port}, {"port", 80}});
  };
  // A port that leads to a guest, in which nobody listens; the host's own timeouts are longer.
  auto leads = [&](uint16_t host_port) {
    return Connect(world_->Socket(SOCK_STREAM), kHost, host_port) == ECONNREFUSED &&
           Network(id).at("packets_in").to_number<uint64_t>() > 0;
  };
  EXPECT_TRUE(IsOk(map(id, 18000)));
  EXPECT_TRUE(IsOk(map(id, 18001)));
  EXPECT_EQ(Text(map(other, 18000), "error"),
            "port 18000 leads to another sandbox, or another port, already");
  EXPECT_TRUE(leads(18000));
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.pause", id)));
  EXPECT_TRUE(IsOk(map(other, 18001)));
  node_->Crash();
  node_->Start();
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.resume", id)));
  EXPECT_EQ(json::serialize(Network(id).at("ports")),
            "[{\"protocol\":\"tcp\",\"host_port\":18000,\"port\":80}]");
  EXPECT_TRUE(leads(18000));
  Object unmap = {{"op", "net.unmap"}, {"id", id}, {"host_port", 18001}};
  EXPECT_TRUE(IsOk(node_->Ask(unmap)));
  EXPECT_EQ(Text(node_->Ask(unmap), "code"), "not_found");
  EXPECT_EQ(Network(other).at("ports").as_array().size(), 1u);
}

TEST_P(NodeNetworkTest, RefusalsAreTold) {
  std::string id = node_->Create();
  // From when on somebody asks.
  EXPECT_TRUE(IsOk(node_->Ask("net.trace")));
  EXPECT_EQ(InGuest(id, "echo | nc 10.1.2.3 25 2> /dev/null || echo refused"), "refused\n");
  // Once each: the guest's kernel may have tried other things.
  Object told = node_->Ask("net.trace");
  std::vector<std::string> of_it;
  for (const json::value& one : told.at("verdicts").as_array()) {
    if (Text(one.as_object(), "remote") == "10.1.2.3:25") of_it.push_back(json::serialize(one));
  }
  ASSERT_EQ(of_it.size(), 1u) << json::serialize(told);
  for (const std::string& part :
       {"\"id\":\"" + id + "\"", std::string("\"protocol\":\"tcp\""),
        std::string("\"direction\":\"out\""), std::string("\"verdict\":\"fixed\"")}) {
    EXPECT_NE(of_it[0].find(part), std::string::npos) << of_it[0];
  }
  EXPECT_GE(Network(id).at("denied").to_number<uint64_t>(), 1u);
}

// A node that carries IPv6.
class NodeIpv6Test : public NodeNetworkTest {
 protected:
  void SetUp() override {
    more_ = "ipv6 = true\n";
    NodeNetworkTest::SetUp();
  }
};

INSTANTIATE_TEST_SUITE_P(Jail, NodeIpv6Test, ::testing::Values(true),
                         [](const auto&) { return "With"; });

TEST_P(NodeIpv6Test, AClonesReach) {
  EchoServer allowed(world_->Socket(SOCK_STREAM, kWorld6, 80));
  EchoServer denied(world_->Socket(SOCK_STREAM, kOther6, 80));
  std::string id = node_->Create({{"allow", {"2001:db8:80::/48"}}, {"deny", {"0.0.0.0/0"}}});
  ASSERT_FALSE(id.empty());
  EXPECT_TRUE(node_->Ask("net.stats").at("ipv6").as_bool());
  const std::string reach =
      "echo hello | nc 2001:db8:80::80 80; "
      "echo hello | nc 2001:db8:66::7 80 2> /dev/null || echo refused; "
      "echo hello | nc fd00:ec2::254 80 2> /dev/null || echo refused";
  EXPECT_EQ(InGuest(id, reach), "hello\nrefused\nrefused\n");
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.pause", id)));
  ASSERT_TRUE(IsOk(node_->Ask("sandbox.resume", id)));
  EXPECT_EQ(InGuest(id, reach), "hello\nrefused\nrefused\n");
  EXPECT_EQ(denied.served(), 0u);
}

}  // namespace
}  // namespace cube::net::testing
