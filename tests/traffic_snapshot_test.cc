// Snapshots and rollbacks while every device has something to do.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <list>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "tests/device_sandbox.h"
#include "tests/host_network.h"

namespace cube::testing {
namespace {

using TrafficSnapshotTest = DeviceSandboxTest;

// Gives back what each of its connections sends, until it goes.
class EchoServer {
 public:
  explicit EchoServer(UniqueFd listener) : listener_(std::move(listener)) {
    accept_ = std::thread([this] {
      for (;;) {
        int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        fds_.push_back(fd);
        connections_.emplace_back([fd] {
          std::string buffer(1 << 16, '\0');
          for (ssize_t n; (n = read(fd, buffer.data(), buffer.size())) > 0;) {
            for (ssize_t done = 0, m; done < n; done += m) {
              m = send(fd, buffer.data() + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
              if (m <= 0) return;
            }
          }
        });
      }
    });
  }
  ~EchoServer() {
    shutdown(listener_.get(), SHUT_RDWR);
    accept_.join();
    for (int fd : fds_) shutdown(fd, SHUT_RDWR);
    for (std::thread& connection : connections_) connection.join();
    for (int fd : fds_) close(fd);
  }

 private:
  UniqueFd listener_;
  std::thread accept_;
  std::list<std::thread> connections_;
  std::vector<int> fds_;
};

UniqueFd ListenUnix(const std::string& path) {
  unlink(path.c_str());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(fd.get(), 8) < 0) {
    abort();
  }
  return fd;
}

constexpr char kTraffic[] = R"(
import hashlib, os, socket, threading
data = b''.join(hashlib.sha256(bytes([i & 255, i >> 8])).digest() for i in range(1 << 16))
rounds = dict.fromkeys(('disk', 'share', 'vsock', 'net'), 0)
errors, stop = [], False
def file_job(name, path):
    while not stop:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        done = 0
        while done < len(data): done += os.write(fd, data[done:done + (1 << 18)])
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(fd, 0, os.SEEK_SET)
        got = b''
        while len(got) < len(data) and (piece := os.read(fd, 1 << 18)): got += piece
        if got != data: errors.append(f'{name}: other data')
        os.close(fd)
        rounds[name] += 1
def echo_job(name, family, address):
    while not stop:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                # A guest that went back waits for what its peer has long sent: programs give up.
                s.settimeout(5)
                s.connect(address)
                while not stop:
                    s.sendall(data[:1 << 16])
                    got = b''
                    while len(got) < 1 << 16:
                        piece = s.recv(1 << 16)
                        if not piece: raise ConnectionError
                        got += piece
                    if got != data[:1 << 16]: errors.append(f'{name}: other data')
                    rounds[name] += 1
        except (ConnectionError, TimeoutError, OSError) as e:
            last = repr(e)
def body(job, *args):
    try: job(*args)
    except BaseException as e: errors.append(f'{args[0]}: {e!r}')
jobs = [threading.Thread(target=body, args=a) for a in (
    (file_job, 'disk', '/root/data'), (file_job, 'share', '/mnt/work/data'),
    (echo_job, 'vsock', socket.AF_VSOCK, (2, 5000)),
    (echo_job, 'net', socket.AF_INET, ('10.77.0.1', 5002)))]
for j in jobs: j.start()
def progress():
    import time
    before = dict(rounds)
    while not errors and any(rounds[name] <= before[name] for name in rounds): time.sleep(0.01)
    print(errors, flush=True)
def finish():
    global stop
    stop = True
    for j in jobs: j.join()
    print(errors, flush=True)
progress()
)";

TEST_F(TrafficSnapshotTest, TrafficInFlightOnEveryDevice) {
  EchoServer net(ListenTcp(5002));
  EchoServer one(ListenUnix(Vsock("one") + "_5000"));
  EchoServer two(ListenUnix(Vsock("two") + "_5000"));
  Process* guest = Clone({"--vsock", Vsock("one"), "--net", "tap=cube0"});
  EXPECT_EQ(Do(guest, kTraffic), "[]");
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    Snapshot(guest, std::to_string(i), i != 3);
    EXPECT_EQ(Do(guest, "progress()"), "[]");
  }
  Rollback(guest, work_ + "/1");
  EXPECT_EQ(Do(guest, "progress()"), "[]");
  EXPECT_EQ(Do(guest, "finish()"), "[]");
  Stop(guest);
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    Process* restored = Restore(std::to_string(i), {"--vsock", Vsock("two"), "--net", "tap=cube0"});
    EXPECT_EQ(Do(restored, "progress()"), "[]");
    EXPECT_EQ(Do(restored, "finish()"), "[]");
    Stop(restored);
  }
}

}  // namespace
}  // namespace cube::testing
