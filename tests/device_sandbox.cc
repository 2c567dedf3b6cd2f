#include "tests/device_sandbox.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "tests/host_network.h"
#include "tests/vmm_command.h"

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

void SendAll(const UniqueFd& fd, const std::string& bytes) {
  ASSERT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

std::vector<std::string> Options(const std::string& home) {
  return {"--rootfs", Env("CUBE_ROOTFS"),          "--memory", "256",
          "--net",    "tap=cube0,ip=10.77.0.2/24", "--vsock",  home + "/run.vsock",
          "--share",  home + "/share:work"};
}

}  // namespace

const char kServe[] = R"(
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

std::string WriteSynced(const std::string& text) {
  return "import os\nf = open('/root/f', 'w'); f.write('" + text +
         "'); f.flush(); os.sync(); print('done')";
}

std::string Receive(const UniqueFd& fd, char until) {
  std::string bytes;
  char c;
  while (read(fd.get(), &c, 1) == 1) {
    bytes += c;
    if (c == until) break;
  }
  return bytes;
}

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

std::string AskGuest(const std::string& path, const std::string& code) {
  UniqueFd fd = ConnectGuest(path, 5001);
  if (!fd.valid()) return "no connection";
  SendAll(fd, OneLine(code));
  return Receive(fd);
}

void DeviceSandboxTest::SetUpTestSuite() {
  Status network = EnterNetworkWithTap("cube0", "10.77.0.1/24");
  ASSERT_TRUE(network.ok()) << network.error().message();
  // Short: the path of a socket has room for 108 bytes.
  char folder[] = "/tmp/device_snapshot_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  home_ = folder;
  ASSERT_EQ(setenv("CUBE_HOME", folder, 1), 0);
  fs::create_directories(home_ + "/share");
  Finished made = RunProcess(CloneVmm(Options(home_), {"/bin/true"}));
  ASSERT_EQ(made.status, 0) << made.err;
  ASSERT_EQ(made.err, "");
  for (const auto& entry : fs::directory_iterator(home_ + "/templates")) {
    template_ = entry.path().string();
  }
}

void DeviceSandboxTest::TearDownTestSuite() { fs::remove_all(home_); }

void DeviceSandboxTest::SetUp() {
  work_ = home_ + "/work";
  fs::remove_all(work_);
  fs::create_directories(work_);
}

void DeviceSandboxTest::TearDown() {
  for (auto& process : running_) {
    Ask({"stop", Socket(process->pid())});
    process->Finish();
  }
}

std::vector<std::string> DeviceSandboxTest::Command(std::vector<std::string> words) {
  words.insert(words.begin(), Env("CUBE_VMM"));
  return words;
}

Finished DeviceSandboxTest::Ask(std::vector<std::string> words) {
  return RunProcess(Command(std::move(words)));
}

std::string DeviceSandboxTest::Socket(pid_t pid) {
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
    if (entry.path().extension() != ".sock") continue;
    Finished info = Ask({"info", entry.path(), "--json"});
    if (info.out.find("\"pid\":" + std::to_string(pid) + ",") != std::string::npos) {
      return entry.path();
    }
  }
  return "";
}

Process* DeviceSandboxTest::Start(std::vector<std::string> words) {
  running_.push_back(std::make_unique<Process>(Command(std::move(words))));
  return running_.back().get();
}

Process* DeviceSandboxTest::Clone(std::vector<std::string> options) {
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

std::string DeviceSandboxTest::Do(Process* guest, const std::string& code) {
  guest->Send(OneLine(code));
  return guest->ReadLine();
}

void DeviceSandboxTest::Stop(Process* guest) {
  EXPECT_EQ(Ask({"stop", Socket(*guest)}).status, 0);
  std::erase_if(running_, [guest](auto& process) {
    if (process.get() != guest) return false;
    process->Finish();
    return true;
  });
}

void DeviceSandboxTest::Snapshot(Process* guest, const std::string& name, bool diff) {
  std::vector<std::string> words = {"snapshot", Socket(*guest), work_ + "/" + name};
  if (diff) words.push_back("--diff");
  Finished taken = Ask(words);
  ASSERT_EQ(taken.status, 0) << taken.err;
}

Process* DeviceSandboxTest::Restore(const std::string& name, std::vector<std::string> options) {
  std::vector<std::string> words = {"restore", work_ + "/" + name};
  words.insert(words.end(), options.begin(), options.end());
  return Start(std::move(words));
}

void DeviceSandboxTest::Rollback(Process* guest, const std::string& path) {
  Finished back = Ask({"rollback", Socket(*guest), path});
  ASSERT_EQ(back.status, 0) << back.err;
}

}  // namespace cube::testing
