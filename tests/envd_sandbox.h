#ifndef CUBE_TESTS_ENVD_SANDBOX_H_
#define CUBE_TESTS_ENVD_SANDBOX_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "guestkernel/agent/envd/sandbox_client.h"
#include "guestkernel/agent/loop/socket_bytes.h"
#include "tests/process.h"

namespace cube::testing {

// A clone of a template with the root disk $CUBE_ROOTFS, of which the host sees what the clients of
// a sandbox see: the ports of its agent, by vsock. All tests of a program clone one template.
class EnvdSandboxTest : public ::testing::Test {
 protected:
  using Client = agent::envd::SandboxClient;
  using Fields = Client::Fields;
  using Transcript = agent::envd::Transcript;
  using Answer = agent::http::TestClient::Answer;

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  // A client of the agent's daemon, or of another of its ports.
  Client Connect(int port = 49983);
  // A connection to a TCP port of the guest's localhost; invalid if nobody listens there, and
  // `error` is what the agent said.
  UniqueFd ConnectForwarded(int port, std::string* error = nullptr);

  // Runs a script to its end. As root unless `fields` say otherwise.
  Transcript Run(const std::string& script, const Fields& fields = AsRoot());
  // What a script that is to succeed prints, without the end of the last line.
  std::string Output(const std::string& script, const Fields& fields = AsRoot());
  // Starts a script, which goes on when the test leaves its client.
  Client Start(const std::string& script, int64_t* pid, const std::string& more = "",
               const Fields& fields = AsRoot());
  // A plain request, on a connection of its own.
  Answer Request(const std::string& method, const std::string& target, const Fields& fields = {},
                 const std::string* body = nullptr);
  // "" or the code of the call's error.
  std::string Call(const std::string& method, const std::string& message,
                   const Fields& fields = {});
  // What the agent is resident with, KiB: now, or at most so far.
  int64_t AgentKib(const std::string& name = "VmRSS");

  static Fields AsRoot() { return {{"Authorization", "Basic cm9vdDo="}}; }
  static Fields AsUser() { return {{"Authorization", "Basic dXNlcjo="}}; }
  // The message that is about that process, `more` after a comma.
  static std::string OfProcess(int64_t pid, const std::string& more = "");

  static inline std::string home_;
  std::string vsock_;
  std::string id_;

 private:
  std::unique_ptr<Process> clone_;
};

// Runs a script as root in the guest whose VMM has its socket at `path`, to its end. A connection
// that is lost is in `error`, if one is given, and a failure else.
agent::envd::Transcript RunScript(const std::string& path, const std::string& script,
                                  std::string* error = nullptr);
// A connection to a port of the guest whose VMM has its socket at `path`; invalid if there is none.
UniqueFd ConnectGuestPort(const std::string& path, int port);
// Limits how long a test waits for a peer that says nothing.
void LimitWaiting(const UniqueFd& fd);

}  // namespace cube::testing

#endif  // CUBE_TESTS_ENVD_SANDBOX_H_
