#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_TEST_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_TEST_H_

#include <gtest/gtest.h>

#include <string>

#include "guestkernel/agent/envd/daemon.h"
#include "guestkernel/agent/envd/sandbox_client.h"
#include "guestkernel/agent/loop/loop_thread.h"

namespace cube::agent::envd {

// For tests: a daemon of this process, with a thread of its own.
class DaemonTest : public ::testing::Test {
 protected:
  explicit DaemonTest(const std::string& token = "")
      : daemon_(thread_.loop.get(), thread_.reaper.get(), &memory_) {
    Identity identity;
    identity.sandbox_id = "the-sandbox";
    identity.access_token = token;
    identity.environment = {"GLOBAL=of the sandbox"};
    identity.default_user = "root";
    daemon_.TakeIdentity(identity);
    EXPECT_TRUE(daemon_.Serve(listener_.Take()).ok());
    thread_.Start();
  }
  ~DaemonTest() override { thread_.Join(); }

  SandboxClient Connect() { return SandboxClient(listener_.Connect()); }
  http::TestClient ConnectHttp() { return http::TestClient(listener_.Connect()); }

  // Runs a script to its end.
  Transcript Run(const std::string& script, const std::string& more = "",
                 const SandboxClient::Fields& fields = {}) {
    SandboxClient client = Connect();
    EXPECT_TRUE(client.Open("/process.Process/Start", Shell(script, more), fields));
    Transcript all = ReadEvents(&client);
    error_ = client.error();
    return all;
  }

  std::string error_;  // of the last Run()
  LoopThread thread_;
  MemoryBudget memory_{16 << 20};
  LocalListener listener_;
  Daemon daemon_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_TEST_H_
