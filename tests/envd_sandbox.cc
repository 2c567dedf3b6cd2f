#include "tests/envd_sandbox.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <utility>

#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kEnvdPort = 49983;
constexpr int kForwardPort = 49982;
constexpr char kTemplate[] = "sandbox";

UniqueFd ConnectUnix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  LimitWaiting(fd);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fd.Reset();
  return fd;
}

std::string ReceiveLine(const UniqueFd& fd) {
  std::string line;
  char c;
  while (recv(fd.get(), &c, 1, 0) == 1 && c != '\n') line += c;
  return line;
}

}  // namespace

UniqueFd ConnectGuestPort(const std::string& path, int port) {
  UniqueFd fd = ConnectUnix(path);
  if (!fd.valid() || !SendAll(fd, "CONNECT " + std::to_string(port) + "\n") ||
      !ReceiveLine(fd).starts_with("OK ")) {
    fd.Reset();
  }
  return fd;
}

agent::envd::Transcript RunScript(const std::string& path, const std::string& script,
                                  std::string* error) {
  UniqueFd fd = ConnectGuestPort(path, kEnvdPort);
  if (!fd.valid()) {
    if (error != nullptr) *error = "nobody listens";
    EXPECT_NE(error, nullptr) << path << ": nobody listens";
    return {};
  }
  agent::envd::SandboxClient client(std::move(fd));
  EXPECT_TRUE(client.Open("/process.Process/Start", agent::envd::Shell(script, R"(,"stdin":false)"),
                          {{"Authorization", "Basic cm9vdDo="}}) ||
              error != nullptr);
  agent::envd::Transcript all = agent::envd::ReadEvents(&client);
  if (error != nullptr) *error = client.error();
  EXPECT_TRUE(error != nullptr || client.error().empty()) << script << "\n" << client.error();
  return all;
}

void LimitWaiting(const UniqueFd& fd) {
  const timeval limit = {250, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void EnvdSandboxTest::SetUpTestSuite() {
  // Short: the path of a socket has room for 108 bytes.
  char folder[] = "/tmp/envd_sandbox_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  home_ = folder;
  ASSERT_EQ(setenv("CUBE_HOME", folder, 1), 0);
  Finished built =
      RunProcess({Env("CUBE_VMM"), "template", "build", kTemplate, "--kernel", Env("CUBE_KERNEL"),
                  "--initrd", Env("CUBE_INITRD"), "--rootfs", fs::canonical(Env("CUBE_ROOTFS")),
                  "--memory", "512", "--vsock", home_ + "/template.vsock"});
  ASSERT_EQ(built.status, 0) << built.err;
}

void EnvdSandboxTest::TearDownTestSuite() { fs::remove_all(home_); }

void EnvdSandboxTest::SetUp() {
  vsock_ = home_ + "/clone.vsock";
  clone_ = std::make_unique<Process>(
      std::vector<std::string>{Env("CUBE_VMM"), "clone", kTemplate, "--vsock", vsock_});
  id_ = clone_->ReadLine();
  ASSERT_NE(id_, Process::kEnded);
}

void EnvdSandboxTest::TearDown() {
  EXPECT_EQ(RunProcess({Env("CUBE_VMM"), "stop", id_}).status, 0);
  EXPECT_EQ(clone_->Finish().err, "");
}

EnvdSandboxTest::Client EnvdSandboxTest::Connect(int port) {
  UniqueFd fd = ConnectGuestPort(vsock_, port);
  EXPECT_TRUE(fd.valid()) << "port " << port;
  return Client(std::move(fd));
}

UniqueFd EnvdSandboxTest::ConnectForwarded(int port, std::string* error) {
  UniqueFd fd = ConnectGuestPort(vsock_, kForwardPort);
  if (!fd.valid() || !SendAll(fd, "CONNECT " + std::to_string(port) + "\n")) return fd;
  const std::string line = ReceiveLine(fd);
  if (line == "OK") return fd;
  if (error != nullptr) *error = line;
  return UniqueFd();
}

EnvdSandboxTest::Transcript EnvdSandboxTest::Run(const std::string& script, const Fields& fields) {
  Client client = Connect();
  EXPECT_TRUE(client.Open("/process.Process/Start", agent::envd::Shell(script, R"(,"stdin":false)"),
                          fields));
  Transcript all = ReadEvents(&client);
  EXPECT_EQ(client.error(), "") << script;
  return all;
}

std::string EnvdSandboxTest::Output(const std::string& script, const Fields& fields) {
  Transcript all = Run(script, fields);
  EXPECT_EQ(all.exit_code(), 0) << script << "\n" << all.err;
  if (all.out.ends_with('\n')) all.out.pop_back();
  return all.out;
}

EnvdSandboxTest::Client EnvdSandboxTest::Start(const std::string& script, int64_t* pid,
                                               const std::string& more, const Fields& fields) {
  Client client = Connect();
  EXPECT_TRUE(client.Open("/process.Process/Start", agent::envd::Shell(script, more), fields));
  *pid = ReadEvents(&client, [](const Transcript& all) { return all.pid != 0; }).pid;
  EXPECT_GT(*pid, 1) << client.error();
  return client;
}

EnvdSandboxTest::Answer EnvdSandboxTest::Request(const std::string& method,
                                                 const std::string& target, const Fields& fields,
                                                 const std::string* body) {
  Client client = Connect();
  client.http().SendRequest(method, target, fields, body);
  return client.http().ReadAnswer();
}

std::string EnvdSandboxTest::Call(const std::string& method, const std::string& message,
                                  const Fields& fields) {
  return Connect().ErrorOf(method, message, fields);
}

int64_t EnvdSandboxTest::AgentKib(const std::string& name) {
  return std::stoll(Output("grep " + name + " /proc/1/status | tr -cd 0-9"));
}

std::string EnvdSandboxTest::OfProcess(int64_t pid, const std::string& more) {
  return "{\"process\":{\"pid\":" + std::to_string(pid) + "}" + (more.empty() ? "" : "," + more) +
         "}";
}

}  // namespace cube::testing
