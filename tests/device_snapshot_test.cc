// Snapshots, clones, forks and rollbacks of a guest with every device: a root disk, a NIC, sockets
// and a share. The guest runs what it is told line by line, so that a test sees what its programs
// have left after they went on elsewhere. All tests clone one template.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <list>
#include <set>
#include <thread>

#include "base/unique_fd.h"
#include "tests/host_network.h"
#include "tests/process.h"
#include "tests/vmm_command.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

// Executes each line of its input, in which \x01 stands for the end of a line; says what that says.
constexpr char kInterpreter[] = R"(
import sys
for line in sys.stdin:
    try:
        exec(line.replace('\x01', '\n'), globals())
    except BaseException as e:
        print('ERROR', repr(e), flush=True)
# Its input has ended: a fork goes on without one.
while 'ends' in globals(): threading.Event().wait()
)";

// The same for one line a connection on AF_VSOCK port 5001, an echo on port 5000.
constexpr char kServe[] = R"(
import contextlib, io, socket, threading
ends = []
def echo(c):
    try:
        while True:
            b = c.recv(65536)
            if not b: break
            c.sendall(b)
        ends.append(0)
    except OSError as e:
        ends.append(e.errno)
    c.close()
def interpret(c):
    with c, c.makefile('r') as f, contextlib.redirect_stdout(io.StringIO()) as out:
        try: exec(f.readline().replace('\x01', '\n'), globals())
        except BaseException as e: print('ERROR', repr(e))
        c.sendall(out.getvalue().encode())
def listen(port, serve):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.bind((socket.VMADDR_CID_ANY, port))
    s.listen()
    def accept():
        while True:
            c, _ = s.accept()
            threading.Thread(target=serve, args=(c,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
listen(5000, echo)
listen(5001, interpret)
print('serving', flush=True)
)";

std::string Line(Process* process) {
  std::string line;
  // Who has ended says nothing any more, at once.
  for (int silent = 0; line.empty() || line.back() != '\n';) {
    std::string more = process->WaitForOutput();
    silent = more.empty() ? silent + 1 : 0;
    if (silent == 1000) return line + "(it has ended)";
    line += more;
  }
  return line.substr(0, line.size() - 1);
}

std::string OneLine(std::string code) {
  std::replace(code.begin(), code.end(), '\n', '\x01');
  return code + "\n";
}

UniqueFd ConnectUnix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit = {250, 0};  // who hangs fails
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fd.Reset();
  return fd;
}

std::string Receive(const UniqueFd& fd, char until = '\0') {
  std::string bytes;
  char c;
  while (read(fd.get(), &c, 1) == 1) {
    bytes += c;
    if (c == until) break;
  }
  return bytes;
}

void SendAll(const UniqueFd& fd, const std::string& bytes) {
  ASSERT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

// A connection to a port of the guest's; invalid if nobody listens there.
UniqueFd ConnectGuest(const std::string& path, int port) {
  UniqueFd fd = ConnectUnix(path);
  if (!fd.valid()) return fd;
  SendAll(fd, "CONNECT " + std::to_string(port) + "\n");
  if (!Receive(fd, '\n').starts_with("OK ")) fd.Reset();
  return fd;
}

std::string Echo(const UniqueFd& fd, const std::string& text) {
  SendAll(fd, text + "\n");
  return Receive(fd, '\n');
}

// What the guest's interpreter behind its socket says.
std::string AskGuest(const std::string& path, const std::string& code) {
  UniqueFd fd = ConnectGuest(path, 5001);
  if (!fd.valid()) return "no connection";
  SendAll(fd, OneLine(code));
  return Receive(fd);
}

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

class DeviceSnapshotTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    Status network = EnterNetworkWithTap("cube0", "10.77.0.1/24");
    ASSERT_TRUE(network.ok()) << network.error().message();
    // Short: the path of a socket has room for 108 bytes.
    char folder[] = "/tmp/device_snapshot_XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    home_ = folder;
    ASSERT_EQ(setenv("CUBE_HOME", folder, 1), 0);
    fs::create_directories(home_ + "/share");
    Finished made = RunProcess(CloneVmm(Options(), {"/bin/true"}));
    ASSERT_EQ(made.status, 0) << made.err;
    ASSERT_EQ(made.err, "");
    for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
      template_ = entry.path().string();
    }
  }
  static void TearDownTestSuite() { fs::remove_all(home_); }

  static std::vector<std::string> Options() {
    return {"--rootfs", Env("CUBE_ROOTFS"),          "--memory", "256",
            "--net",    "tap=cube0,ip=10.77.0.2/24", "--vsock",  home_ + "/run.vsock",
            "--share",  home_ + "/share:work"};
  }
  void SetUp() override {
    work_ = home_ + "/work";
    fs::remove_all(work_);
    fs::create_directories(work_);
  }
  void TearDown() override {
    for (auto& [process, name] : running_) {
      Ask({"stop", Socket(process->pid())});
      process->Finish();
    }
  }
  static std::vector<std::string> Command(std::vector<std::string> words) {
    words.insert(words.begin(), Env("CUBE_VMM"));
    return words;
  }
  static Finished Ask(std::vector<std::string> words) {
    return RunProcess(Command(std::move(words)));
  }
  // Of the sandbox in the process `pid`.
  std::string Socket(pid_t pid) {
    for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
      if (entry.path().extension() != ".sock") continue;
      Finished info = Ask({"info", entry.path(), "--json"});
      if (info.out.find("\"pid\":" + std::to_string(pid) + ",") != std::string::npos) {
        return entry.path();
      }
    }
    return "";
  }
  std::string Socket(const Process& guest) { return Socket(guest.pid()); }
  Process* Start(std::vector<std::string> words) {
    running_.emplace_back(std::make_unique<Process>(Command(std::move(words))), "");
    return running_.back().first.get();
  }
  // A clone of the template that does what it is told.
  Process* Clone(std::vector<std::string> options) {
    std::vector<std::string> words = {"clone", template_};
    words.insert(words.end(), options.begin(), options.end());
    for (const char* word : {"-e", "PATH=/usr/bin:/bin", "--", "python3", "-u", "-c"}) {
      words.push_back(word);
    }
    words.push_back(kInterpreter);
    Process* guest = Start(std::move(words));
    EXPECT_EQ(Do(guest, "print('up')"), "up");
    return guest;
  }
  Process* Restore(const std::string& name, std::vector<std::string> options) {
    std::vector<std::string> words = {"restore", work_ + "/" + name};
    words.insert(words.end(), options.begin(), options.end());
    return Start(std::move(words));
  }
  void Stop(Process* guest) {
    EXPECT_EQ(Ask({"stop", Socket(*guest)}).status, 0);
    std::erase_if(running_, [guest](auto& entry) {
      if (entry.first.get() != guest) return false;
      entry.first->Finish();
      return true;
    });
  }
  void Snapshot(Process* guest, const std::string& name, bool diff = true) {
    std::vector<std::string> words = {"snapshot", Socket(*guest), work_ + "/" + name};
    if (diff) words.push_back("--diff");
    Finished taken = Ask(words);
    ASSERT_EQ(taken.status, 0) << taken.err;
  }
  void Rollback(Process* guest, const std::string& path) {
    Finished back = Ask({"rollback", Socket(*guest), path});
    ASSERT_EQ(back.status, 0) << back.err;
  }
  std::string Vsock(const std::string& name) { return home_ + "/" + name + ".v"; }

  // The line that `code` prints in the guest.
  static std::string Do(Process* guest, const std::string& code) {
    guest->Send(OneLine(code));
    return Line(guest);
  }

  static inline std::string home_, template_;
  std::string work_;
  std::vector<std::pair<std::unique_ptr<Process>, std::string>> running_;
};

constexpr char kReadUncached[] =
    "import os\nopen('/proc/sys/vm/drop_caches', 'w').write('3')\n"
    "print(open('/root/f').read() if os.path.exists('/root/f') else 'nothing')";

std::string WriteSynced(const std::string& text) {
  return "import os\nf = open('/root/f', 'w'); f.write('" + text +
         "'); f.flush(); os.sync(); print('done')";
}

TEST_F(DeviceSnapshotTest, DisksAreTheClonesOwn) {
  Process* one = Clone({"--vsock", Vsock("one")});
  Process* two = Clone({"--vsock", Vsock("two")});
  EXPECT_EQ(Do(one, WriteSynced("one")), "done");
  EXPECT_EQ(Do(two, kReadUncached), "nothing");
  EXPECT_EQ(Do(two, WriteSynced("two")), "done");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  Snapshot(one, "diff");
  Snapshot(one, "full", false);
  // What the parent writes later is not the snapshots', what they write is not the parent's.
  EXPECT_EQ(Do(one, WriteSynced("later")), "done");
  Process* restored = Restore("diff", {"--vsock", Vsock("three")});
  EXPECT_EQ(Do(restored, kReadUncached), "one");
  EXPECT_EQ(Do(restored, WriteSynced("restored")), "done");
  Process* full = Restore("full", {"--vsock", Vsock("four")});
  EXPECT_EQ(Do(full, kReadUncached), "one");
  EXPECT_EQ(Do(one, kReadUncached), "later");
  EXPECT_EQ(Do(two, kReadUncached), "two");
  EXPECT_EQ(Do(restored, kReadUncached), "restored");
  // Back, and back to where it came from.
  Rollback(one, work_ + "/diff");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  EXPECT_EQ(Do(one, WriteSynced("again")), "done");
  Rollback(one, work_ + "/diff");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  // Snapshots of what was written after snapshots.
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    const std::string text = "round " + std::to_string(i);
    EXPECT_EQ(Do(restored, WriteSynced(text)), "done");
    Snapshot(restored, std::to_string(i));
    Process* next = Restore(std::to_string(i), {"--vsock", Vsock("next")});
    EXPECT_EQ(Do(next, kReadUncached), text);
    Stop(next);
  }
}

TEST_F(DeviceSnapshotTest, TheFileSystemOfASnapshotIsSound) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(
      Do(guest,
         "import os\nfor i in range(200):\n"
         " os.makedirs(f'/root/d/{i}'); open(f'/root/d/{i}/f', 'wb').write(os.urandom(9000))\n"
         "os.sync()\nfor i in range(0, 200, 2): os.remove(f'/root/d/{i}/f')\nprint('done')"),
      "done");
  Snapshot(guest, "diff");
  Stop(guest);
  std::vector<std::string> files = {"disk", "flatten", fs::canonical(Env("CUBE_ROOTFS"))};
  for (const std::string& layer : {template_ + "/disk-vda", work_ + "/diff/disk-vda"}) {
    if (fs::exists(layer)) files.push_back(layer);
  }
  files.push_back(work_ + "/image");
  Finished flattened = Ask(files);
  ASSERT_EQ(flattened.status, 0) << flattened.err;
  // As after a power failure: the journal is replayed, and then nothing is wrong.
  Finished replayed = RunProcess({"/sbin/e2fsck", "-p", work_ + "/image"});
  EXPECT_LE(replayed.status, 1) << replayed.out << replayed.err;
  Finished checked = RunProcess({"/sbin/e2fsck", "-fn", work_ + "/image"});
  EXPECT_EQ(checked.status, 0) << checked.out << checked.err;
}

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

TEST_F(DeviceSnapshotTest, ProgramsGoOnWithTheirFilesMemoryAndConnections) {
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

TEST_F(DeviceSnapshotTest, ConnectionsToTheGuestAreResetAndNewOnesWork) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, kServe), "serving");
  UniqueFd connection = ConnectGuest(Vsock("one"), 5000);
  ASSERT_TRUE(connection.valid());
  EXPECT_EQ(Echo(connection, "before"), "before\n");
  Snapshot(guest, "diff");
  // The parent's goes on.
  EXPECT_EQ(Echo(connection, "after"), "after\n");
  Process* restored = Restore("diff", {"--vsock", Vsock("two")});
  // At once: the client waits for the socket's file, no longer.
  while (!fs::exists(Vsock("two"))) usleep(1000);
  UniqueFd fresh;
  while (!fresh.valid()) fresh = ConnectGuest(Vsock("two"), 5000);
  EXPECT_EQ(Echo(fresh, "new"), "new\n");
  EXPECT_EQ(Do(restored, "print(ends)"), "[104]");  // ECONNRESET
  EXPECT_EQ(AskGuest(Vsock("two"), "print(ends)"), "[104]\n");
  // The parent goes back: its connection ends, on both sides, and new ones work.
  Rollback(guest, work_ + "/diff");
  EXPECT_EQ(Receive(connection), "");
  fresh = ConnectGuest(Vsock("one"), 5000);
  ASSERT_TRUE(fresh.valid());
  EXPECT_EQ(Echo(fresh, "new"), "new\n");
  EXPECT_EQ(Do(guest, "print(ends)"), "[104]");
}

TEST_F(DeviceSnapshotTest, ANetworkIsGivenToACloneOrItsLinkIsDown) {
  const char* carrier = "print(open('/sys/class/net/eth0/carrier').read().strip())";
  const char* address = "print(open('/sys/class/net/eth0/address').read().strip())";
  UniqueFd listener = ListenTcp(5001);
  Process* guest = Clone({"--vsock", Vsock("one"), "--net", "tap=cube0"});
  EXPECT_EQ(Do(guest, carrier), "1");
  const std::string mac = Do(guest, address);
  EXPECT_EQ(Do(guest,
               "import socket\nc = socket.create_connection(('10.77.0.1', 5001))\n"
               "c.sendall(b'x')\nprint('sent')"),
            "sent");
  UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  char byte;
  EXPECT_EQ(read(peer.get(), &byte, 1), 1);
  Snapshot(guest, "diff");
  // One network cannot be two machines'.
  Finished second = RunProcess(Command({"restore", work_ + "/diff", "--net", "tap=cube0"}));
  EXPECT_EQ(second.status, 125);
  EXPECT_NE(second.err.find("TAP cube0: Device or resource busy"), std::string::npos) << second.err;
  Process* alone = Restore("diff", {"--vsock", Vsock("two")});
  EXPECT_EQ(Do(alone, carrier), "0");
  EXPECT_EQ(Do(alone, address), mac);
  Stop(alone);
  Stop(guest);
  peer.Reset();
  Process* restored = Restore("diff", {"--vsock", Vsock("two"), "--net", "tap=cube0"});
  EXPECT_EQ(Do(restored, carrier), "1");
  EXPECT_EQ(Do(restored, address), mac);
  // The connection's other end is gone: an error, not a wait without end.
  EXPECT_EQ(
      Do(restored,
         "c.settimeout(200)\ntry:\n c.sendall(b'y'); print('end' if not c.recv(1) else 'data')\n"
         "except ConnectionError as e: print('end')"),
      "end");
  EXPECT_EQ(Do(restored,
               "c = socket.create_connection(('10.77.0.1', 5001)); c.sendall(b'z'); print('sent')"),
            "sent");
  UniqueFd again(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(read(again.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'z');
  Finished more =
      RunProcess(Command({"restore", work_ + "/diff", "--net", "tap=a", "--net", "tap=b"}));
  EXPECT_NE(more.err.find("the guest has only 1 NICs"), std::string::npos) << more.err;
}

TEST_F(DeviceSnapshotTest, TimersFireOnce) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, R"(
import select, signal, threading, time
fired = []
begin = time.monotonic()
def fire(name):
    fired.append((name, time.monotonic() - begin))
signal.signal(signal.SIGALRM, lambda *_: fire('alarm'))
signal.setitimer(signal.ITIMER_REAL, 4)
def sleep(name, wait):
    wait()
    fire(name)
threads = [threading.Timer(4, fire, ['futex']),
           threading.Thread(target=sleep, args=('nanosleep', lambda: time.sleep(4))),
           threading.Thread(target=sleep, args=('select', lambda: select.select([], [], [], 4)))]
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
  const std::string all = "['alarm', 'futex', 'nanosleep', 'select'] True True";
  EXPECT_EQ(Do(guest, "all_fired()"), all);
  Rollback(guest, work_ + "/diff");
  EXPECT_EQ(Do(guest, "all_fired()"), all);
  Stop(guest);
  Process* restored = Restore("diff", {"--vsock", Vsock("two")});
  EXPECT_EQ(Do(restored, "all_fired()"), all);
  long now = time(nullptr);
  EXPECT_LE(labs(std::stol(Do(restored, "print(int(time.time()))")) - now), 5);
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

TEST_F(DeviceSnapshotTest, TrafficInFlightOnEveryDevice) {
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

TEST_F(DeviceSnapshotTest, ForksHaveDisksAndSocketsOfTheirOwn) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, kServe), "serving");
  EXPECT_EQ(Do(guest, WriteSynced("parent")), "done");
  std::set<std::string> before;
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) before.insert(entry.path());
  Finished forked = Ask({"fork", Socket(*guest), "-n", "2"});
  ASSERT_EQ(forked.status, 0) << forked.err;
  EXPECT_EQ(Do(guest, WriteSynced("later")), "done");
  std::vector<std::string> sockets, controls;
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
    if (before.contains(entry.path())) continue;
    if (entry.path().extension() == ".vsock") sockets.push_back(entry.path());
    if (entry.path().extension() == ".sock") controls.push_back(entry.path());
  }
  ASSERT_EQ(sockets.size(), 2u);
  for (const std::string& socket : sockets) {
    EXPECT_EQ(AskGuest(socket, kReadUncached), "parent\n");
    EXPECT_EQ(AskGuest(socket, WriteSynced(socket)), "done\n");
    EXPECT_EQ(AskGuest(socket, "print(open('/sys/class/net/eth0/carrier').read().strip())"), "0\n");
  }
  for (const std::string& socket : sockets) {
    EXPECT_EQ(AskGuest(socket, kReadUncached), socket + "\n");
  }
  EXPECT_EQ(Do(guest, kReadUncached), "later");
  for (const std::string& control : controls) EXPECT_EQ(Ask({"stop", control}).status, 0);
  for (const std::string& socket : sockets) {
    while (fs::exists(socket)) usleep(1000);
  }
}

// A TAP of this process's network, as somebody hands it to a clone.
UniqueFd OpenTap(const char* name) {
  UniqueFd fd = OpenFile("/dev/net/tun", O_RDWR).value();
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd.get(), TUNSETIFF, &request) < 0) abort();
  return fd;
}

TEST_F(DeviceSnapshotTest, AZygotesClonesGetTheirNetworkAndSocket) {
  Process zygote(Command({"zygote", template_, "--socket", home_ + "/zygote"}));
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  UniqueFd socket = vmm::ConnectControl(home_ + "/zygote").value();
  std::string buffer;
  auto ask = [&](const std::string& request, const std::vector<int>& descriptors = {}) {
    EXPECT_TRUE(vmm::SendLine(socket.get(), request, descriptors).ok());
    return vmm::ControlRequest::Parse(vmm::ReceiveLine(socket.get(), &buffer).value()).value();
  };
  UniqueFd tap = OpenTap("cube1");
  std::vector<vmm::ControlRequest> answers = {
      ask("{\"op\":\"clone\",\"net\":[\"tap=cube0\"],\"vsock\":\"" + Vsock("a") + "\"}"),
      ask("{\"op\":\"clone\",\"net\":[\"fd=0\"]}", {tap.get()}), ask("{\"op\":\"clone\"}")};
  EXPECT_EQ(answers[0].String("vsock").value(), Vsock("a"));
  std::set<std::string> paths;
  for (const vmm::ControlRequest& answer : answers) {
    ASSERT_TRUE(answer.Bool("ok", false).value()) << answer.String("error", "").value();
    const std::string path = answer.String("vsock").value();
    EXPECT_TRUE(fs::exists(path)) << path;
    paths.insert(path);
    const std::string control = home_ + "/run/" + answer.String("id").value() + ".sock";
    UniqueFd sandbox = vmm::ConnectControl(control).value();
    std::string rest;
    EXPECT_TRUE(vmm::SendLine(sandbox.get(), "{\"op\":\"start\"}").ok());
    auto ready = vmm::ControlRequest::Parse(vmm::ReceiveLine(sandbox.get(), &rest).value()).value();
    EXPECT_TRUE(ready.Bool("ok", false).value());
    // It takes part at once: nobody listens at that port, which the guest's kernel says.
    EXPECT_FALSE(ConnectGuest(path, 9).valid());
  }
  EXPECT_EQ(paths.size(), 3u);
  EXPECT_NE(ask("{\"op\":\"clone\",\"net\":[\"tap=cube0\"]}").String("error").value().find("busy"),
            std::string::npos);
  EXPECT_EQ(ask("{\"op\":\"clone\",\"net\":[\"fd=0\"]}").String("error").value(),
            "\"fd=0\": 0 descriptors came with the request");
  for (const vmm::ControlRequest& answer : answers) {
    EXPECT_EQ(Ask({"stop", answer.String("id").value()}).status, 0);
  }
  EXPECT_TRUE(ask("{\"op\":\"stop\"}").Bool("ok", false).value());
  zygote.Finish();
  for (const std::string& path : paths) {
    while (fs::exists(path)) usleep(1000);
  }
}

TEST_F(DeviceSnapshotTest, WhatCannotBeFrozenBootsOrIsRefused) {
  const std::string raw = work_ + "/raw";
  std::ofstream(raw).close();
  fs::resize_file(raw, 1 << 20);
  auto run = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"--json", "--rootfs", Env("CUBE_ROOTFS"), "--memory", "256"});
    return RunProcess(CloneVmm(options, {"/bin/true"}));
  };
  auto cloned = [](const Finished& run) {
    EXPECT_EQ(run.status, 0) << run.err << run.out;
    return run.out.find("\"boot\":") == std::string::npos;
  };
  // A disk that keeps what is written to it: the next guest would not find it as this one did.
  EXPECT_FALSE(cloned(run({"--disk", raw})));
  EXPECT_FALSE(cloned(run({"--disk", raw})));
  EXPECT_FALSE(cloned(run({"--disk", raw + ":ro"})));
  EXPECT_TRUE(cloned(run({"--disk", raw + ":ro"})));
  // Another content is another machine.
  std::ofstream(raw, std::ios::app) << std::string(1 << 20, 'x');
  EXPECT_FALSE(cloned(run({"--disk", raw + ":ro"})));
  Process booted(Vmm({"--rootfs", Env("CUBE_ROOTFS"), "--memory", "256", "--disk", raw},
                     {"/bin/sh", "-c", "echo up; cat"}));
  EXPECT_EQ(Line(&booted), "up");
  Finished refused = Ask({"snapshot", Socket(booted), work_ + "/refused"});
  EXPECT_NE(refused.err.find("disk vdb: the disk's image is written itself"), std::string::npos)
      << refused.err;
  // It goes on.
  EXPECT_EQ(booted.Finish("end\n").out, "end\n");
}

}  // namespace
}  // namespace cube::testing
