#include <arpa/inet.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstring>
#include <future>
#include <thread>

#include "net/peek_proxy.h"
#include "net/resolver.h"
#include "net/testing/fabric_fixture.h"
#include "net/testing/name_server.h"
#include "net/testing/packet6.h"

// Names: what a guest's kernel asks the node's resolver, and where it is let to after.
namespace cube::net::testing {
namespace {

class ProxiesTest : public FabricFixture {
 protected:
  void SetUp() override {
    FabricFixture::SetUp();
    auto resolver = Resolver::Create(io_, fabric_.get(), {.servers = {"192.0.2.80"}});
    auto proxy = PeekProxy::Create(io_, fabric_.get());
    ASSERT_TRUE(resolver.ok() && proxy.ok());
    resolver_ = *resolver;
    proxy_ = *proxy;
    fabric_->SetProxyPorts(resolver_->port(), proxy_->port(), proxy_->port6());
    resolver_->Start();
    proxy_->Start();
    guest_ = Guest("one", Lists({"*.example.com"}, {"0.0.0.0/0"}, true));
    slot_ = *fabric_->SlotOf("one");
    thread_ = std::thread([this] { io_.run(); });
    dns_ = guest_->space().Socket(SOCK_DGRAM);
    ASSERT_EQ(Connect(dns_, kGatewayAddress, 53), 0);
  }
  void TearDown() override {
    OnLoop([this] {
      resolver_->Stop();
      proxy_->Stop();
    });
    work_.reset();
    thread_.join();
    guest_.reset();
    FabricFixture::TearDown();
  }
  // The fabric is of one thread.
  void OnLoop(const std::function<void()>& act) {
    std::promise<void> done;
    asio::post(io_, [&] {
      act();
      done.set_value();
    });
    done.get_future().wait();
  }
  void SetPolicy(const Policy& policy) {
    OnLoop([&] {
      EXPECT_TRUE(fabric_->EnsureNetwork("one", policy).ok());
      proxy_->Recheck(slot_);
    });
  }
  // What the guest hears of a name.
  DnsAnswer Ask(const std::string& name, uint16_t type = kDnsTypeA) {
    Bytes query = Query(name, type), answer(2000);
    EXPECT_EQ(send(dns_.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
    ssize_t n = recv(dns_.get(), answer.data(), answer.size(), 0);
    answer.resize(n > 0 ? static_cast<size_t>(n) : 0);
    auto said = ParseDnsAnswer(answer, ParseDnsQuery(query).value(), 77);
    EXPECT_TRUE(said.ok()) << name;
    return said.ok() ? *said : DnsAnswer();
  }
  // Sends that to a server of the world's that echoes, and says what comes back, or "reset".
  std::string Say(uint16_t port, const std::string& text, const char* address = kWorld) {
    bool is_ipv6 = std::string_view(address).find(':') != std::string_view::npos;
    UniqueFd socket = guest_->space().Socket(SOCK_STREAM, is_ipv6 ? "::" : "");
    if (Connect(socket, address, port) != 0) return "refused";
    send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
    char heard[2000];
    ssize_t n = recv(socket.get(), heard, sizeof heard, 0);
    return n < 0 ? "reset" : std::string(heard, static_cast<size_t>(n));
  }

  asio::io_context io_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_{
      io_.get_executor()};
  std::shared_ptr<Resolver> resolver_;
  std::shared_ptr<PeekProxy> proxy_;
  std::unique_ptr<GuestStack> guest_;
  uint32_t slot_ = 0;
  std::thread thread_;
  UniqueFd dns_;
};

constexpr char kRequest[] = "GET / HTTP/1.1\r\nHost: good.example.com\r\n\r\n";
constexpr char kForwarded[] =
    "GET / HTTP/1.1\r\nHost: good.example.com\r\nConnection: close\r\n\r\n";

TEST_F(ProxiesTest, NamesOfTheListOpenTheirAddresses) {
  NameServer names(*world_);
  EchoServer http(world_->Socket(SOCK_STREAM, kWorld, 80));
  EchoServer other(world_->Socket(SOCK_STREAM, kWorld, 8080));
  EXPECT_EQ(Say(80, kRequest), "refused");
  DnsAnswer answer = Ask("Good.Example.com");
  ASSERT_EQ(answer.addresses.size(), 1u);
  EXPECT_EQ(answer.addresses[0].address, Address(kWorld));
  EXPECT_EQ(Say(80, kRequest), kForwarded);
  // The same address by another name, by none, and at another port.
  EXPECT_EQ(Say(80, "GET / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n"), "reset");
  EXPECT_EQ(Say(80, "GET http://evil.example.net/ HTTP/1.1\r\nHost: good.example.com\r\n\r\n"),
            "reset");
  EXPECT_EQ(Say(80, "HELO\r\n"), "reset");
  EXPECT_EQ(Say(8080, kRequest), "refused");
  EXPECT_EQ(Say(80, kRequest, kOther), "refused");
  EXPECT_EQ(http.served(), 1u);
}

TEST_F(ProxiesTest, NamesThatAreNotOnTheListAreNotAskedFor) {
  NameServer names(*world_);
  for (const char* name : {"example.com", "evil.example.net", "example.com.evil.net", "com"}) {
    EXPECT_EQ(Ask(name).code, DnsCode::kRefused) << name;
  }
  EXPECT_EQ(names.asked(), 0u);
  EXPECT_EQ(Ask("none.example.com").raw_code, 3);
  // Of IPv6 there is nothing, which is said without asking.
  DnsAnswer six = Ask("good.example.com", kDnsTypeAaaa);
  EXPECT_EQ(six.code, DnsCode::kNoError);
  EXPECT_TRUE(six.addresses.empty());
  EXPECT_EQ(names.asked(), 1u);
}

TEST_F(ProxiesTest, NamesThatPointInsideAreEmpty) {
  NameServer names(*world_);
  EXPECT_TRUE(Ask("metadata.example.com").addresses.empty());
  EXPECT_EQ(Say(80, kRequest, "169.254.169.254"), "refused");
  DnsAnswer mixed = Ask("mixed.example.com");
  ASSERT_EQ(mixed.addresses.size(), 1u);
  EXPECT_EQ(mixed.addresses[0].address, Address(kWorld));
  EXPECT_EQ(Say(80, kRequest, "10.0.0.1"), "refused");
}

TEST_F(ProxiesTest, ByTcp) {
  NameServer names(*world_);
  UniqueFd socket = guest_->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kGatewayAddress, 53), 0);
  for (uint16_t id : {1, 2}) {
    Bytes query = Query("long.example.com", kDnsTypeA, id);
    Bytes framed = {0, static_cast<uint8_t>(query.size())};
    framed.insert(framed.end(), query.begin(), query.end());
    ASSERT_GT(send(socket.get(), framed.data(), framed.size(), MSG_NOSIGNAL), 0);
    uint8_t size[2];
    ASSERT_EQ(recv(socket.get(), size, 2, MSG_WAITALL), 2);
    Bytes answer(static_cast<size_t>(size[0]) << 8 | size[1]);
    ASSERT_EQ(recv(socket.get(), answer.data(), answer.size(), MSG_WAITALL),
              static_cast<ssize_t>(answer.size()));
    auto said = ParseDnsAnswer(answer, ParseDnsQuery(query).value(), id);
    ASSERT_TRUE(said.ok());
    EXPECT_EQ(said->addresses.size(), 60u);
  }
  // More than a datagram holds: who asked by UDP is told to ask by TCP.
  EXPECT_TRUE(Ask("long.example.com").truncated);
}

TEST_F(ProxiesTest, WhatIsNoQueryHasNoAnswer) {
  NameServer names(*world_);
  for (const Bytes& bytes : {Bytes{}, Bytes(11, 0), Bytes(500, 0xc0), Bytes(12, 0xff)}) {
    send(dns_.get(), bytes.data(), bytes.size(), 0);
  }
  EXPECT_EQ(Ask("good.example.com").addresses.size(), 1u);
}

TEST_F(ProxiesTest, TlsByItsServerName) {
  NameServer names(*world_);
  EchoServer tls(world_->Socket(SOCK_STREAM, kWorld, 443));
  ASSERT_EQ(Ask("good.example.com").addresses.size(), 1u);
  auto hello = [](const std::string& name) {
    std::string extension = {0,
                             0,
                             0,
                             static_cast<char>(name.size() + 5),
                             0,
                             static_cast<char>(name.size() + 3),
                             0,
                             0,
                             static_cast<char>(name.size())};
    extension += name;
    std::string body = std::string("\3\3") + std::string(32, 'r') +
                       std::string("\0\0\2\x13\1\1\0", 7) + std::string(1, '\0') +
                       static_cast<char>(extension.size()) + extension;
    std::string handshake = std::string("\1\0\0", 3) + static_cast<char>(body.size()) + body;
    return std::string("\x16\3\1\0", 4) + static_cast<char>(handshake.size()) + handshake;
  };
  EXPECT_EQ(Say(443, hello("good.example.com")), hello("good.example.com"));
  EXPECT_EQ(Say(443, hello("evil.example.net")), "reset");
  EXPECT_EQ(Say(443, kRequest), "reset");
  EXPECT_EQ(tls.served(), 1u);
}

TEST_F(ProxiesTest, AListThatChangesEndsConnections) {
  NameServer names(*world_);
  EchoServer http(world_->Socket(SOCK_STREAM, kWorld, 80));
  ASSERT_EQ(Ask("good.example.com").addresses.size(), 1u);
  UniqueFd socket = guest_->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kWorld, 80), 0);
  ASSERT_GT(send(socket.get(), kRequest, strlen(kRequest), 0), 0);
  char heard[200];
  ASSERT_GT(recv(socket.get(), heard, sizeof heard, 0), 0);
  SetPolicy(Lists({"*.example.org"}, {"0.0.0.0/0"}, true));
  EXPECT_EQ(recv(socket.get(), heard, sizeof heard, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(Ask("good.example.com").code, DnsCode::kRefused);
  // Without any list: names are asked for if there is an internet to reach.
  SetPolicy(Policy());
  EXPECT_EQ(Ask("good.example.com").addresses.size(), 1u);
  SetPolicy(Lists({kWorld}, {"0.0.0.0/0"}, true));
  EXPECT_EQ(Ask("good.example.com").code, DnsCode::kRefused);
}

TEST(HostNameServersTest, OfIpv4) {
  EXPECT_EQ(HostNameServers("# x\nnameserver 192.0.2.1\nsearch a\nnameserver fe80::1\n"
                            "nameserver 192.0.2.2\n"),
            (std::vector<std::string>{"192.0.2.1", "192.0.2.2"}));
}

class Ipv6ProxiesTest : public ProxiesTest {
 protected:
  Ipv6ProxiesTest() { ipv6_ = true; }
};

TEST_F(Ipv6ProxiesTest, NamesOfTheListOpenTheirAddresses) {
  NameServer names(*world_);
  EchoServer http(world_->Socket(SOCK_STREAM, kWorld6, 80));
  EchoServer https(world_->Socket(SOCK_STREAM, kWorld6, 443));
  EchoServer other(world_->Socket(SOCK_STREAM, kWorld6, 8080));
  EXPECT_EQ(Say(80, kRequest, kWorld6), "refused");
  DnsAnswer answer = Ask("good.example.com", kDnsTypeAaaa);
  ASSERT_EQ(answer.addresses6.size(), 1u);
  EXPECT_EQ(answer.addresses6[0].address, Address6(kWorld6));
  EXPECT_TRUE(answer.addresses.empty());
  EXPECT_EQ(Say(80, kRequest, kWorld6), kForwarded);
  // That of IPv4 was not asked for.
  EXPECT_EQ(Say(80, kRequest), "refused");
  // The same address by another name, by none, and at another port.
  EXPECT_EQ(Say(80, "GET / HTTP/1.1\r\nHost: evil.example.net\r\n\r\n", kWorld6), "reset");
  EXPECT_EQ(Say(80, "HELO\r\n", kWorld6), "reset");
  EXPECT_EQ(Say(443, kRequest, kWorld6), "reset");
  EXPECT_EQ(Say(8080, kRequest, kWorld6), "refused");
  EXPECT_EQ(https.served() + other.served(), 0u);
  // Names that are bound to what is inside.
  EXPECT_TRUE(Ask("metadata.example.com", kDnsTypeAaaa).addresses6.empty());
  EXPECT_EQ(Ask("mixed.example.com", kDnsTypeAaaa).addresses6.size(), 1u);
  // A list that has no names any more ends it.
  SetPolicy(Lists({}, {"0.0.0.0/0"}, true));
  EXPECT_EQ(Say(80, kRequest, kWorld6), "refused");
}

}  // namespace
}  // namespace cube::net::testing
