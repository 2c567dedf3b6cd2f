// One guest with every device there is, which uses them all at once.
#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "base/unique_fd.h"
#include "tests/host_network.h"
#include "tests/host_state.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

constexpr size_t kSize = 4 << 20;

// A job per device. Each ends in an error if a byte is not what it was. The input comes by the
// share; sockets give back what the host sends.
constexpr char kGuest[] = R"(
import os, socket, sys, threading

data = open('/mnt/work/in', 'rb').read()
failed = []

def write_and_read(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:done + (1 << 20)])
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(fd, 0, os.SEEK_SET)
    got = bytearray()
    while len(got) < len(data):
        got += os.read(fd, 1 << 20)
    assert got == data
    os.close(fd)

def echo(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.connect(address)
        got = bytearray()
        while len(got) < len(data):
            piece = s.recv(1 << 16)
            assert piece
            got += piece
        assert got == data
        s.sendall(got)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b''

def entropy():
    with open('/dev/hwrng', 'rb', buffering=0) as f:
        seen = {f.read(64) for _ in range(200)}
    assert len(seen) == 200

def job(name, run, *args):
    def body():
        try:
            run(*args)
        except BaseException as e:
            failed.append(f'{name}: {e!r}')
    return threading.Thread(target=body)

jobs = [job('root', write_and_read, '/root/copy'),
        job('disk', write_and_read, '/dev/vdb'),
        job('share', write_and_read, '/mnt/work/out'),
        job('net', echo, socket.AF_INET, ('10.77.0.1', 5000)),
        job('vsock', echo, socket.AF_VSOCK, (2, 5000)),
        job('rng', entropy)]
for j in jobs: j.start()
for j in jobs: j.join()
sys.exit('; '.join(failed) or 0)
)";

std::string Pattern() {
  std::string bytes(kSize, '\0');
  uint32_t state = 1;
  for (char& c : bytes) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

UniqueFd ListenUnix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(fd.get(), 1) < 0) {
    abort();
  }
  return fd;
}

// Accepts one connection, sends all of `bytes`, and takes the answer until its end.
std::string Exchange(const UniqueFd& listener, const std::string& bytes) {
  const timeval limit = {250, 0};  // who hangs fails
  setsockopt(listener.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  UniqueFd connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  ssize_t n = 0;
  for (size_t done = 0; done < bytes.size(); done += static_cast<size_t>(n)) {
    n = send(connection.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return "";
  }
  std::string answer;
  std::string buffer(1 << 16, '\0');
  while ((n = recv(connection.get(), buffer.data(), buffer.size(), 0)) > 0) {
    answer.append(buffer, 0, static_cast<size_t>(n));
  }
  return answer;
}

std::set<std::string> Interfaces() {
  std::set<std::string> names;
  struct if_nameindex* all = if_nameindex();
  for (struct if_nameindex* each = all; each != nullptr && each->if_index != 0; ++each) {
    names.insert(each->if_name);
  }
  if_freenameindex(all);
  return names;
}

TEST(AllDevices, WorkAtOnceAndLeaveNothingBehind) {
  const std::string folder = Env("TEST_TMPDIR");
  const std::string share = folder + "/share";
  const std::string disk = folder + "/disk";
  // Short: the path of a socket has room for 108 bytes, that of the test's folder may not fit.
  std::string sockets = "/tmp/all_devices_XXXXXX";
  ASSERT_NE(mkdtemp(sockets.data()), nullptr);
  const std::string vsock = sockets + "/vsock";
  const std::string pattern = Pattern();
  std::filesystem::create_directories(share);
  std::ofstream(share + "/in", std::ios::binary) << pattern;
  std::ofstream(disk).close();
  std::filesystem::resize_file(disk, 2 * kSize);
  Status network = EnterNetworkWithTap("cube0", "10.77.0.1/24");
  ASSERT_TRUE(network.ok()) << network.error().message();

  const HostState state = HostState::Count(Env("CUBE_VMM"));
  const std::set<std::string> interfaces = Interfaces();
  {
    UniqueFd tcp = ListenTcp(5000);
    UniqueFd unix = ListenUnix(vsock + "_5000");
    std::string by_net, by_vsock;
    std::thread net_peer([&] { by_net = Exchange(tcp, pattern); });
    std::thread vsock_peer([&] { by_vsock = Exchange(unix, pattern); });
    Finished run =
        RunProcess(Vmm({"--rootfs", Env("CUBE_ROOTFS"), "--memory", "256", "--timeout", "240",
                        "--json", "--disk", disk, "--net", "tap=cube0,ip=10.77.0.2/24", "--vsock",
                        vsock, "--share", share + ":work", "--balloon", "32"},
                       {"python3", "-c", kGuest}));
    // A guest that never came leaves the peers waiting.
    shutdown(tcp.get(), SHUT_RD);
    shutdown(unix.get(), SHUT_RD);
    net_peer.join();
    vsock_peer.join();
    EXPECT_EQ(run.status, 0) << run.out << run.err;
    EXPECT_EQ(run.out.find("\"failure\""), std::string::npos) << run.out;
    EXPECT_TRUE(by_net == pattern) << by_net.size() << " bytes came back";
    EXPECT_TRUE(by_vsock == pattern) << by_vsock.size() << " bytes came back";
  }
  EXPECT_TRUE(ReadFile(share + "/out") == pattern);
  EXPECT_TRUE(ReadFile(disk).substr(0, kSize) == pattern);
  EXPECT_FALSE(std::filesystem::exists(vsock));
  std::filesystem::remove_all(sockets);
  EXPECT_EQ(HostState::Count(Env("CUBE_VMM")), state);
  EXPECT_EQ(Interfaces(), interfaces);
}

}  // namespace
}  // namespace cube::testing
