// Sockets between a real guest and the host: its program (guest/vsock_peer.cc) echoes, sinks,
// connects back and dies. CUBE_VSOCK_MESSAGES says how many messages are sent in parallel streams.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "tests/guest/vsock_pattern.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

constexpr int kPort = 5000;
constexpr int kStreams = 32;
constexpr uint64_t kStreamSize = 32 << 20;

UniqueFd NewSocket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval limit = {300, 0};  // a stream that hangs fails
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return fd;
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

bool Write(const UniqueFd& fd, const void* bytes, size_t size) {
  const auto* next = static_cast<const char*>(bytes);
  while (size > 0) {
    ssize_t n = send(fd.get(), next, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    next += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

bool Write(const UniqueFd& fd, const std::string& text) {
  return Write(fd, text.data(), text.size());
}

// Up to `size` bytes; fewer if the stream ends before.
std::string Read(const UniqueFd& fd, size_t size) {
  std::string bytes(size, '\0');
  size_t got = 0;
  while (got < size) {
    ssize_t n = recv(fd.get(), bytes.data() + got, size - got, 0);
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  bytes.resize(got);
  return bytes;
}

std::string ReadLine(const UniqueFd& fd) {
  std::string line;
  char c;
  while (line.size() < 100 && recv(fd.get(), &c, 1, 0) == 1 && c != '\n') line += c;
  return line;
}

// One VM for all tests: a boot is what costs here.
class VsockVm : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = "/tmp/vsock-vm-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    vm_ = std::make_unique<Process>(
        Vmm({"--vsock", path(), "--cpus", "2"}, {"/bin/vsock_peer", std::to_string(kPort)}));
    ASSERT_EQ(vm_->WaitForOutput(), "ready\n");
  }
  static void TearDownTestSuite() {
    kill(vm_->pid(), SIGTERM);
    EXPECT_EQ(vm_->Finish().status, 128 + SIGTERM);
    EXPECT_FALSE(std::filesystem::exists(path())) << "the socket outlives the VM";
    vm_.reset();
    std::filesystem::remove_all(folder_);
  }
  static std::string path() { return folder_ + "/v"; }

  // A stream to the guest's program, in a mode of its.
  static UniqueFd Connect(const std::string& mode, int port = kPort) {
    UniqueFd fd = NewSocket();
    sockaddr_un address = Address(path());
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
        !Write(fd, "CONNECT " + std::to_string(port) + "\n") || ReadLine(fd).rfind("OK ", 0) != 0 ||
        !Write(fd, mode)) {
      return UniqueFd();
    }
    return fd;
  }
  static UniqueFd Listen(int port) {
    UniqueFd fd = NewSocket();
    sockaddr_un address = Address(path() + "_" + std::to_string(port));
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd.get(), 4), 0);
    return fd;
  }

  static std::string folder_;
  static std::unique_ptr<Process> vm_;
};

std::string VsockVm::folder_;
std::unique_ptr<Process> VsockVm::vm_;

// Sends messages of all sizes up to 4 KiB, and compares what comes back. Returns how many did.
int Messages(const UniqueFd& fd, int stream, int count) {
  for (int i = 0; i < count; ++i) {
    std::vector<uint8_t> bytes(4096);
    FillPattern(static_cast<uint64_t>(stream) << 32 | static_cast<uint64_t>(i) << 13, bytes);
    bytes.resize(1 + static_cast<size_t>(i * 997 + stream * 31) % bytes.size());
    if (!Write(fd, bytes.data(), bytes.size())) return i;
    std::string back = Read(fd, bytes.size());
    if (back.size() != bytes.size() || memcmp(back.data(), bytes.data(), bytes.size()) != 0) {
      return i;
    }
  }
  return count;
}

TEST_F(VsockVm, MessagesInParallelStreamsAllComeBack) {
  const int per_stream = (atoi(Env("CUBE_VSOCK_MESSAGES").c_str()) + kStreams - 1) / kStreams;
  std::vector<int> done(kStreams);
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) {
    threads.emplace_back([&done, i, per_stream] {
      UniqueFd fd = Connect("e");
      if (fd.valid()) done[static_cast<size_t>(i)] = Messages(fd, i, per_stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, std::vector<int>(kStreams, per_stream));
}

TEST_F(VsockVm, MebibytesBothWaysArriveIntact) {
  UniqueFd fd = Connect("b" + std::to_string(kStreamSize) + "\n");
  ASSERT_TRUE(fd.valid());
  Checksum sent;
  std::thread sender([&] {
    std::vector<uint8_t> bytes(65536);
    for (uint64_t at = 0; at < kStreamSize; at += bytes.size()) {
      FillPattern(kStreamSize + at, bytes);
      sent.Add(bytes);
      if (!Write(fd, bytes.data(), bytes.size())) return;
    }
    shutdown(fd.get(), SHUT_WR);
  });
  bool same = true;
  std::vector<uint8_t> expected(65536);
  for (uint64_t at = 0; at < kStreamSize && same; at += expected.size()) {
    FillPattern(at, expected);
    std::string got = Read(fd, expected.size());
    same = got.size() == expected.size() && memcmp(got.data(), expected.data(), got.size()) == 0;
  }
  EXPECT_TRUE(same);
  sender.join();
  EXPECT_EQ(Read(fd, 100), sent.text());
}

TEST_F(VsockVm, TheHostsHalfCloseReachesTheGuestAndTheAnswerTheHost) {
  UniqueFd fd = Connect("e");
  ASSERT_TRUE(fd.valid());
  std::string question(100000, 'q');
  std::thread sender([&] {
    Write(fd, question);
    shutdown(fd.get(), SHUT_WR);
  });
  EXPECT_EQ(Read(fd, question.size() + 1), question);
  sender.join();
}

TEST_F(VsockVm, TheGuestConnectsToTheHost) {
  UniqueFd listener = Listen(7000);
  UniqueFd control = Connect("c7000\n");
  ASSERT_TRUE(control.valid());
  UniqueFd server(accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(server.valid());
  EXPECT_EQ(Read(server, 100), "from the guest");  // up to the guest's half-close
  Write(server, "from the host");
  server.Reset();
  EXPECT_EQ(Read(control, 100), "from the host");
}

TEST_F(VsockVm, PortsWithoutListenerAreRefused) {
  EXPECT_FALSE(Connect("e", 5001).valid());
  UniqueFd control = Connect("c7001\n");
  EXPECT_EQ(Read(control, 100), "error " + std::to_string(ECONNRESET));
}

TEST_F(VsockVm, AKilledGuestProgramEndsItsStream) {
  UniqueFd fd = Connect("x");
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(Read(fd, 100), "dying");
}

// Hosts that leave in the middle of a stream: the guest's threads see it and end.
TEST_F(VsockVm, ClientsThatVanishAreNoticed) {
  for (int i = 0; i < 8; ++i) {
    UniqueFd fd = Connect("e");
    ASSERT_TRUE(fd.valid());
    ASSERT_TRUE(Write(fd, std::string(50000, 'v')));
  }
  std::string others;
  for (int i = 0; i < 1000 && others != "0"; ++i) others = Read(Connect("n"), 10);
  EXPECT_EQ(others, "0");
}

TEST_F(VsockVm, APathInUseIsRefusedWithOneLine) {
  Finished second = RunProcess(Vmm({"--vsock", path()}, {"/bin/true"}));
  EXPECT_EQ(second.status, 125);
  EXPECT_EQ(second.err, "cube-vmm: --vsock: " + path() + " is in use by another process\n");
  EXPECT_TRUE(Connect("n").valid());
}

TEST(Vsock, ASocketLeftByAKilledVmIsReplaced) {
  std::string folder = "/tmp/vsock-stale-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  std::string path = folder + "/v";
  {
    Process killed(Vmm({"--vsock", path}, {"/bin/sh", "-c", "echo up; sleep 1000"}));
    EXPECT_EQ(killed.WaitForOutput(), "up\n");
    kill(killed.pid(), SIGKILL);
    EXPECT_EQ(killed.Finish().status, 128 + SIGKILL);
  }
  EXPECT_TRUE(std::filesystem::exists(path));
  Finished next = RunProcess(Vmm({"--vsock", path + ",cid=42"}, {"/bin/true"}));
  EXPECT_EQ(next.status, 0) << next.err;
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(folder);
}

TEST(Vsock, BadOptionsAreOneLine) {
  const std::pair<std::string, std::string> cases[] = {
      {"/tmp/v,cid=2", "--vsock: guest CID 2 is not one of 3 to 4294967294"},
      {"/tmp/v,cid=x", "--vsock: cid=x is not a number"},
      {"/tmp/v,color=red", "--vsock: unknown option color=red"},
      {",cid=3", "--vsock: socket path of 0 bytes, 1 to 96 are possible"},
      {"/dev/null", "--vsock: /dev/null exists and is not a socket"},
  };
  for (const auto& [option, message] : cases) {
    Finished run = RunProcess(Vmm({"--vsock=" + option}, {"/bin/true"}));
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(run.err, "cube-vmm: " + message + "\n");
  }
}

}  // namespace
}  // namespace cube::testing
