#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <thread>

#include "guestkernel/agent/forward/forwarder.h"
#include "guestkernel/agent/loop/loop_thread.h"
#include "guestkernel/agent/loop/socket_bytes.h"

namespace cube::agent {
namespace {

std::string ReadAll(const UniqueFd& fd) { return ReceiveBytes(fd, 1 << 20); }

// A server on localhost only.
class LocalServer {
 public:
  explicit LocalServer(int family) : socket_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in6 in6 = {};
    in6.sin6_family = AF_INET6;
    in6.sin6_addr = in6addr_loopback;
    sockaddr_in in = {};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool v6 = family == AF_INET6;
    auto* address = v6 ? reinterpret_cast<sockaddr*>(&in6) : reinterpret_cast<sockaddr*>(&in);
    socklen_t size = v6 ? sizeof in6 : sizeof in;
    EXPECT_EQ(bind(socket_.get(), address, size), 0);
    EXPECT_EQ(listen(socket_.get(), 4), 0);
    EXPECT_EQ(getsockname(socket_.get(), address, &size), 0);
    port_ = ntohs(v6 ? in6.sin6_port : in.sin_port);
  }
  UniqueFd Accept() { return UniqueFd(accept(socket_.get(), nullptr, nullptr)); }
  std::string line() const { return "CONNECT " + std::to_string(port_) + "\n"; }
  int port() const { return port_; }

 private:
  UniqueFd socket_;
  int port_ = 0;
};

class ForwardTest : public ::testing::Test {
 protected:
  ForwardTest() : forwarder_(thread_.loop.get(), &memory_) {
    EXPECT_TRUE(forwarder_.Serve(listener_.Take()).ok());
    thread_.Start();
  }
  ~ForwardTest() override { thread_.Join(); }

  LoopThread thread_;
  MemoryBudget memory_{16 << 20};
  LocalListener listener_;
  Forwarder forwarder_;
};

TEST_F(ForwardTest, BothWaysAndBothHalvesOnBothAddresses) {
  for (int family : {AF_INET, AF_INET6}) {
    LocalServer server(family);
    UniqueFd client = listener_.Connect();
    ASSERT_TRUE(SendAll(client, server.line() + "early"));
    UniqueFd peer = server.Accept();
    EXPECT_EQ(ReceiveBytes(client, 3), "OK\n");
    EXPECT_EQ(ReceiveBytes(peer, 5), "early");
    ASSERT_TRUE(SendAll(peer, "answer"));
    EXPECT_EQ(ReceiveBytes(client, 6), "answer");
    ASSERT_TRUE(SendAll(client, "last"));
    shutdown(client.get(), SHUT_WR);
    EXPECT_EQ(ReadAll(peer), "last");
    ASSERT_TRUE(SendAll(peer, "after the end"));
    peer.Reset();
    EXPECT_EQ(ReadAll(client), "after the end");
  }
}

TEST_F(ForwardTest, MebibytesBothWaysAtOnce) {
  LocalServer server(AF_INET);
  UniqueFd client = listener_.Connect();
  ASSERT_TRUE(SendAll(client, server.line()));
  UniqueFd peer = server.Accept();
  EXPECT_EQ(ReceiveBytes(client, 3), "OK\n");
  std::string there;
  for (int i = 0; i < 16 << 20; ++i) there += static_cast<char>(i * 7 + i / 251);
  const std::string back(there.rbegin(), there.rend());
  std::thread first([&] { EXPECT_TRUE(SendAll(client, there)); });
  std::thread second([&] { EXPECT_TRUE(SendAll(peer, back)); });
  std::thread third([&] { EXPECT_TRUE(ReceiveBytes(peer, there.size()) == there); });
  EXPECT_TRUE(ReceiveBytes(client, back.size()) == back);
  first.join();
  second.join();
  third.join();
}

TEST_F(ForwardTest, WhatCannotBeConnectedIsOneLine) {
  int port;
  {
    LocalServer gone(AF_INET);
    port = gone.port();
  }
  auto answer = [this](const std::string& line) {
    UniqueFd client = listener_.Connect();
    SendAll(client, line);
    return ReadAll(client);
  };
  EXPECT_EQ(answer("CONNECT " + std::to_string(port) + "\n"),
            "ERROR port " + std::to_string(port) + ": Connection refused\n");
  const std::string wrong = "ERROR the first line has to be CONNECT and a port of 1 to 65535\n";
  for (const char* line : {"\n", "GET / HTTP/1.1\r\n", "CONNECT \n", "CONNECT 0\n",
                           "CONNECT 65536\n", "CONNECT 1x\n", "CONNECT -1\n"}) {
    EXPECT_EQ(answer(line), wrong) << line;
  }
  EXPECT_EQ(answer(std::string(1000, 'x')), "ERROR the first line is too long\n");
}

TEST_F(ForwardTest, AServerThatDiesEndsItsClients) {
  LocalServer server(AF_INET);
  UniqueFd client = listener_.Connect();
  ASSERT_TRUE(SendAll(client, server.line()));
  UniqueFd peer = server.Accept();
  EXPECT_EQ(ReceiveBytes(client, 3), "OK\n");
  const linger reset = {1, 0};
  setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  peer.Reset();
  EXPECT_EQ(ReadAll(client), "");
}

}  // namespace
}  // namespace cube::agent
