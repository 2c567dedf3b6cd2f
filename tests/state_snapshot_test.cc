// Programs that go on in a clone: their files, memory, connections and timers.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>
#include <fstream>

#include "tests/device_sandbox.h"
#include "tests/process.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

using StateSnapshotTest = DeviceSandboxTest;

constexpr char kState[] = R"(
import hashlib, os, socket, threading
memory = os.urandom(20 << 20)
before = hashlib.sha256(memory).hexdigest()
open('/root/numbers', 'w').write(''.join(f'{i:03d}\n' for i in range(1000)))
open('/mnt/work/numbers', 'w').write(''.join(f'{i:03d}\n' for i in range(1000)))
disk = open('/root/numbers'); share = os.open('/mnt/work/numbers', os.O_RDONLY)
out = open('/mnt/work/out', 'w')
listener = socket.create_server(('127.0.0.1', 7000))
client = socket.create_connection(('127.0.0.1', 7000))
server, _ = listener.accept()
def serve():
    while b := server.recv(100): server.sendall(b)
threading.Thread(target=serve, daemon=True).start()
def look():
    client.sendall(b'ping')
    out.write('x'); out.flush()
    print(disk.readline().strip(), os.read(share, 4).decode().strip(), client.recv(4).decode(),
          hashlib.sha256(memory).hexdigest() == before, os.path.getsize('/mnt/work/out'), flush=True)
look()
)";

TEST_F(StateSnapshotTest, ProgramsGoOnWithTheirFilesMemoryAndConnections) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, kState), "000 000 ping True 1");
  Snapshot(guest, "diff");
  EXPECT_EQ(Do(guest, "look()"), "001 001 ping True 2");
  EXPECT_EQ(Do(guest, "look()"), "002 002 ping True 3");
  Rollback(guest, work_ + "/diff");
  // The host's directory does not go back; where programs are in it does.
  EXPECT_EQ(Do(guest, "look()"), "001 001 ping True 3");
  Stop(guest);
  Process* restored = Restore("diff", {"--vsock", Vsock("two")});
  EXPECT_EQ(Do(restored, "look()"), "001 001 ping True 3");
  EXPECT_EQ(Do(restored, "look()"), "002 002 ping True 3");
  Stop(restored);
  // In a directory in which a file of that name is another, it is stale, and found anew by its
  // name.
  fs::create_directories(work_ + "/other");
  std::ofstream(work_ + "/other/numbers") << "other\n";
  Process* elsewhere =
      Restore("diff", {"--vsock", Vsock("three"), "--share", work_ + "/other:work"});
  EXPECT_NE(Do(elsewhere, "look()").find("ERROR OSError(116"), std::string::npos);
  EXPECT_EQ(Do(elsewhere, "print(open('/mnt/work/numbers').read().strip())"), "other");
}

TEST_F(StateSnapshotTest, TimersFireOnce) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, R"(
import ctypes, os, select, signal, struct, threading, time
fired = []
begin = time.monotonic()
def fire(name):
    fired.append((name, time.monotonic() - begin))
signal.signal(signal.SIGALRM, lambda *_: fire('alarm'))
signal.setitimer(signal.ITIMER_REAL, 4)
def sleep(name, wait):
    wait()
    fire(name)
libc = ctypes.CDLL(None)
fd = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
assert fd >= 0 and libc.timerfd_settime(fd, 0, struct.pack('4q', 0, 0, 4, 0), None) == 0
threads = [threading.Timer(4, fire, ['futex']),
           threading.Thread(target=sleep, args=('nanosleep', lambda: time.sleep(4))),
           threading.Thread(target=sleep, args=('select', lambda: select.select([], [], [], 4))),
           threading.Thread(target=sleep, args=('timerfd', lambda: os.read(fd, 8)))]
for t in threads: t.start()
print('set', flush=True)
def all_fired():
    for t in threads: t.join()
    while time.monotonic() < begin + 5: time.sleep(0.05)
    print(sorted(name for name, at in fired), all(4 <= at < 60 for name, at in fired),
          abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 1, flush=True)
)"),
            "set");
  Snapshot(guest, "diff");
  const std::string all = "['alarm', 'futex', 'nanosleep', 'select', 'timerfd'] True True";
  EXPECT_EQ(Do(guest, "all_fired()"), all);
  Rollback(guest, work_ + "/diff");
  EXPECT_EQ(Do(guest, "all_fired()"), all);
  Stop(guest);
  Process* restored = Restore("diff", {"--vsock", Vsock("two")});
  EXPECT_EQ(Do(restored, "all_fired()"), all);
  long now = time(nullptr);
  EXPECT_LE(labs(std::stol(Do(restored, "print(int(time.time()))")) - now), 5);
}

}  // namespace
}  // namespace cube::testing
