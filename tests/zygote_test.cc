// A zygote: one process that forks clones of a template, which wait until they are started.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <set>

#include "tests/await.h"
#include "tests/control_peer.h"
#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

using Peer = ControlPeer;

bool Ok(const vmm::ControlRequest& answer) { return ControlPeer::Ok(answer); }

class ZygoteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/zygote-home";
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
    ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);
    for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
      template_ = entry.path().string();
    }
    socket_ = home_ + "/zygote.sock";
  }
  std::vector<std::string> Command() const {
    return {Env("CUBE_VMM"), "zygote", template_, "--socket", socket_};
  }
  std::string SocketOf(const std::string& id) const { return home_ + "/run/" + id + ".sock"; }

  std::string home_, template_, socket_;
};

TEST_F(ZygoteTest, ClonesAreParkedStartedAndTheirOwn) {
  const HostState before = HostState::Count(Env("CUBE_VMM"));
  constexpr int kClones = 8;
  {
    Process zygote(Command());
    ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
    // All asked for before any is answered.
    std::vector<std::unique_ptr<Peer>> peers;
    for (int i = 0; i < kClones; ++i) {
      peers.push_back(std::make_unique<Peer>(socket_));
      peers.back()->Send("{\"op\":\"clone\"}");
    }
    std::set<std::string> ids;
    for (auto& peer : peers) {
      vmm::ControlRequest answer = peer->Receive();
      ASSERT_TRUE(Ok(answer));
      ids.insert(answer.String("id").value());
    }
    EXPECT_EQ(ids.size(), static_cast<size_t>(kClones));
    // They outlive the zygote.
    EXPECT_TRUE(Ok(Peer(socket_).Ask("{\"op\":\"stop\"}")));
    EXPECT_EQ(zygote.Finish().status, 0);
    for (const std::string& id : ids) {
      Peer sandbox(SocketOf(id));
      EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"start\",\"environment\":[\"A=1\"]}")));
      vmm::ControlRequest again = sandbox.Ask("{\"op\":\"start\"}");
      EXPECT_FALSE(Ok(again));
      EXPECT_EQ(again.String("error").value(), "this sandbox runs already");
      EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"info\"}")));
      EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"stop\"}")));
    }
    // Each ends by itself, and closes its socket as the last thing it does.
    for (const std::string& id : ids) {
      AwaitGone(SocketOf(id));
    }
  }
  EXPECT_FALSE(fs::exists(socket_));
  HostState::AwaitProcesses(Env("CUBE_VMM"), before.processes);
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")), before);
}

TEST_F(ZygoteTest, ACloneCanBeFrozenAndAZygoteCanDie) {
  Process zygote(Command());
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  std::string id = Peer(socket_).Ask("{\"op\":\"clone\"}").String("id").value();
  kill(zygote.pid(), SIGKILL);
  zygote.Finish();
  Peer sandbox(SocketOf(id));
  EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"start\"}")));
  std::string out = home_ + "/frozen";
  fs::remove_all(out);
  EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"snapshot\",\"diff\":true,\"path\":\"" + out + "\"}")));
  EXPECT_TRUE(fs::exists(out + "/manifest.json"));
  EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"rollback\",\"path\":\"" + out + "\"}")));
  EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"stop\"}")));
}

TEST_F(ZygoteTest, WhatAKilledCloneHasLeftIsClearedAwayByTheNextCommand) {
  Process zygote(Command());
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  auto start = [&] {
    vmm::ControlRequest clone = Peer(socket_).Ask("{\"op\":\"clone\"}");
    const std::string id = clone.String("id").value();
    EXPECT_TRUE(Ok(Peer(SocketOf(id)).Ask("{\"op\":\"start\"}")));
    return std::pair(id, static_cast<pid_t>(clone.Number("pid", 0, 1 << 30).value()));
  };
  const auto [killed, victim] = start();
  const auto [living, pid] = start();
  kill(victim, SIGKILL);
  AwaitEnd(victim);
  EXPECT_TRUE(fs::exists(SocketOf(killed)));
  ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);
  EXPECT_FALSE(fs::exists(SocketOf(killed)));
  EXPECT_FALSE(fs::exists(home_ + "/run/" + killed + ".log"));
  EXPECT_TRUE(fs::exists(home_ + "/run/" + living + ".log"));
  EXPECT_TRUE(Ok(Peer(SocketOf(living)).Ask("{\"op\":\"stop\"}")));
  AwaitEnd(pid);
  EXPECT_TRUE(Ok(Peer(socket_).Ask("{\"op\":\"stop\"}")));
  EXPECT_EQ(zygote.Finish().status, 0);
}

TEST_F(ZygoteTest, ClonesOfAMachineThatRan) {
  Process ran({Env("CUBE_VMM"), "clone", template_});
  std::string id = ran.ReadLine();
  const std::string frozen = home_ + "/ran";
  fs::remove_all(frozen);
  ASSERT_EQ(RunProcess({Env("CUBE_VMM"), "snapshot", id, frozen, "--diff"}).status, 0);
  ASSERT_EQ(RunProcess({Env("CUBE_VMM"), "stop", id}).status, 0);
  ran.Finish();
  Process zygote({Env("CUBE_VMM"), "zygote", frozen, "--socket", socket_});
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  for (int i = 0; i < 2; ++i) {
    vmm::ControlRequest clone = Peer(socket_).Ask("{\"op\":\"clone\"}");
    ASSERT_TRUE(Ok(clone));
    Peer sandbox(SocketOf(clone.String("id").value()));
    EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"start\"}")));
    EXPECT_TRUE(Ok(sandbox.Ask("{\"op\":\"stop\"}")));
  }
  EXPECT_TRUE(Ok(Peer(socket_).Ask("{\"op\":\"stop\"}")));
  EXPECT_EQ(zygote.Finish().err, "");
}

TEST_F(ZygoteTest, RefusesInOneLine) {
  Process zygote(Command());
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  Peer peer(socket_);
  EXPECT_NE(peer.Ask("nonsense").String("error").value().find("not JSON"), std::string::npos);
  EXPECT_EQ(peer.Ask("{\"op\":\"dance\"}").String("error").value(), "unknown operation \"dance\"");
  EXPECT_EQ(peer.Ask("{}").String("error").value(), "\"op\" is missing");
  // A second one at the same place.
  Finished second = RunProcess(Command());
  EXPECT_EQ(second.status, 125);
  EXPECT_NE(second.err.find("another process listens there"), std::string::npos) << second.err;
  EXPECT_TRUE(Ok(peer.Ask("{\"op\":\"stop\"}")));
  EXPECT_EQ(zygote.Finish().status, 0);
}

}  // namespace
}  // namespace cube::testing
