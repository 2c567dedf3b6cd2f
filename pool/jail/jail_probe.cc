// In place of cube-vmm, in a jail: tries what a machine, or a zygote, that has been taken over
// would, and writes into its box, in the file `results`, of each try whether it was refused. Then,
// as a machine, it waits at its control socket for a byte: 'k' for a system call that is not
// allowed, 'm' to eat memory, 'f' for processes, 'c' for a processor. As a zygote it makes clones,
// which do the same.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/cli/clone_jail.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/event_loop.h"
#include "vmm/syscall_filter.h"

namespace {

namespace fs = std::filesystem;
using cube::vmm::SyscallFilter;

// Another sandbox's id, which runs (tests/jail_test.cc).
constexpr char kOther[] = "0123456789abcdef0123";

struct Try {
  std::string name;
  std::function<bool()> succeeds;
};

bool Opens(const std::string& path, int flags = O_RDONLY) {
  return open(path.c_str(), flags | O_CLOEXEC, 0600) >= 0;
}

bool Connects(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

// Anything but what the jail is made of.
bool SeesMore(const std::string& home) {
  const std::string top = home.substr(0, home.find('/', 1));
  for (const auto& entry : fs::directory_iterator("/")) {
    const std::string path = entry.path();
    if (path != "/dev" && path != "/proc" && path != top) return true;
  }
  for (const auto& entry : fs::directory_iterator("/dev")) {
    if (entry.path() != "/dev/null" && entry.path() != "/dev/kvm") return true;
  }
  for (const auto& entry : fs::directory_iterator(home)) {
    const std::string path = entry.path();
    if (path != home + "/box" && path != home + "/templates" && path != home + "/zygote")
      return true;
  }
  return false;
}

// More than `own`, this one among them.
bool SeesOtherProcesses(size_t own) {
  size_t processes = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (isdigit(entry.path().filename().c_str()[0]) != 0) ++processes;
  }
  return processes > own;
}

Try Call(const char* name, long number, long a = 0, long b = 0, long c = 0, long d = 0,
         long e = 0) {
  return {name, [=] { return syscall(number, a, b, c, d, e) >= 0; }};
}

std::vector<Try> AllTries(const std::string& home, size_t processes) {
  const std::string other = kOther;
  static perf_event_attr perf = {};
  static char stack[4096];
  perf.size = sizeof perf;
  const std::string box = home + "/node/boxes/" + other + "/run/" + other + ".sock";
  return {
      {"a file of the host", [] { return Opens("/etc/passwd"); }},
      {"a file above", [=] { return Opens(home + "/box/../../../../etc/passwd"); }},
      {"a file above the root", [] { return Opens("/../../etc/passwd"); }},
      {"another root", [] { return Opens("/proc/1/root/etc/passwd"); }},
      {"the working directory", [] { return Opens("/proc/self/cwd/etc/passwd"); }},
      {"what else there is", [=] { return SeesMore(home); }},
      {"other processes", [=] { return SeesOtherProcesses(processes); }},
      {"the kernel's settings", [] { return Opens("/proc/sys/kernel/hostname"); }},
      {"the kernel's symbols", [] { return Opens("/proc/kallsyms"); }},
      {"memory of the host", [] { return Opens("/dev/mem", O_RDWR); }},
      {"a disk of the host", [] { return Opens("/dev/vda"); }},
      {"the network's device", [] { return Opens("/dev/net/tun", O_RDWR); }},
      {"a device by its number", [] { return mknod("/dev/m", S_IFCHR | 0600, 0x101) == 0; }},
      {"a device in the box",
       [=] { return mknod((home + "/box/m").c_str(), S_IFCHR | 0600, 0x101) == 0; }},
      {"a file in the root", [] { return Opens("/mine", O_RDWR | O_CREAT); }},
      {"a file in the home", [=] { return Opens(home + "/mine", O_RDWR | O_CREAT); }},
      {"the template", [=] { return Opens(home + "/templates/t/memory", O_RDWR); }},
      {"a file in the template",
       [=] { return Opens(home + "/templates/t/mine", O_RDWR | O_CREAT); }},
      {"another's control socket", [=] { return Connects(box); }},
      {"the zygote's socket", [=] { return Connects(home + "/zygote/zygote.sock"); }},
      {"the zygote's results", [=] { return Opens(home + "/zygote/results"); }},
      {"the daemon's socket", [=] { return Connects(home + "/cubed.sock"); }},
      {"a signal to all", [] { return kill(-1, 0) == 0; }},
      {"a signal to another", [] { return kill(100, 0) == 0; }},
      {"ptrace", [] { return ptrace(PTRACE_ATTACH, 1, nullptr, nullptr) == 0; }},
      Call("memory of another", SYS_process_vm_readv, 1),
      Call("a file of another", SYS_pidfd_getfd, 0, 0, 0),
      {"mount", [] { return mount("x", "/dev", "tmpfs", 0, nullptr) == 0; }},
      {"unmount", [] { return umount2("/proc", MNT_DETACH) == 0; }},
      Call("a tree of mounts", SYS_open_tree, AT_FDCWD, reinterpret_cast<long>("/"), 1),
      Call("a moved mount", SYS_move_mount, 0, 0, 0, 0, 0),
      Call("pivot_root", SYS_pivot_root, reinterpret_cast<long>("."), reinterpret_cast<long>(".")),
      {"chroot", [] { return chroot("/dev") == 0; }},
      {"a user namespace", [] { return unshare(CLONE_NEWUSER) == 0; }},
      {"a mount namespace", [] { return unshare(CLONE_NEWNS) == 0; }},
      {"a network namespace", [] { return unshare(CLONE_NEWNET) == 0; }},
      {"a clone's namespaces",
       [] { return unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) == 0; }},
      {"a process in a user namespace",
       [] { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) >= 0; }},
      {"clone3", [] { return syscall(SYS_clone3, stack, 64) >= 0; }},
      {"another namespace", [] { return setns(0, 0) == 0; }},
      {"a raw socket", [] { return socket(AF_PACKET, SOCK_RAW, 0) >= 0; }},
      {"a socket of the network", [] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; }},
      {"netlink", [] { return socket(AF_NETLINK, SOCK_RAW, 0) >= 0; }},
      {"vsock", [] { return socket(AF_VSOCK, SOCK_STREAM, 0) >= 0; }},
      Call("keyctl", SYS_keyctl, 0, -3, 0),
      Call("add_key", SYS_add_key, 0, 0, 0, 0, 0),
      Call("bpf", SYS_bpf, BPF_PROG_LOAD, reinterpret_cast<long>(stack), 128),
      Call("perf_event_open", SYS_perf_event_open, reinterpret_cast<long>(&perf), 0, -1, -1, 0),
      Call("io_uring", SYS_io_uring_setup, 8, reinterpret_cast<long>(stack)),
      Call("userfaultfd", SYS_userfaultfd, 0),
      Call("a file by its handle", SYS_open_by_handle_at, AT_FDCWD, reinterpret_cast<long>(stack)),
      Call("setuid", SYS_setuid, 0),
      Call("setresuid", SYS_setresuid, 0, 0, 0),
      Call("setgroups", SYS_setgroups, 0, 0),
      Call("capset", SYS_capset, reinterpret_cast<long>(stack), 0),
      {"another's file", [=] { return chown((home + "/box").c_str(), 0, 0) == 0; }},
      Call("a module", SYS_init_module, 0, 0, 0),
      Call("another kernel", SYS_kexec_load, 0, 0, 0, 0),
      Call("the clock", SYS_clock_settime, 0, reinterpret_cast<long>(stack)),
      Call("a reboot", SYS_reboot, 0, 0, 0),
      Call("ports", SYS_iopl, 3),
      Call("personality", SYS_personality, 0),
      Call("a fanotify group", SYS_fanotify_init, 0, 0),
      Call("a name of the host", SYS_sethostname, reinterpret_cast<long>("x"), 1),
      Call("a message queue", SYS_msgget, 0, 0600),
      Call("exec", SYS_execve, reinterpret_cast<long>("/proc/self/exe"), 0, 0),
      {"executable memory",
       [] {
         return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                MAP_FAILED;
       }},
      {"a call that there is not", [] { return syscall(100000) >= 0; }},
  };
}

// In a process of its own, which may be ended for it.
const char* Outcome(const Try& one) {
  pid_t child = fork();
  if (child < 0) return "not tried";
  if (child == 0) _exit(one.succeeds() ? 1 : 0);
  int status = 0;
  if (waitpid(child, &status, 0) != child) return "lost";
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) return "ended";
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "refused" : "SUCCEEDED";
}

// At the control socket of the sandbox `id`, whose box is `box`.
int Listen(const std::string& box, const std::string& id) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = box + "/run/" + id + ".sock";
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (mkdir((box + "/run").c_str(), 0700) < 0 ||
      bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(listener, 4) < 0) {
    return -1;
  }
  return listener;
}

[[noreturn]] void EatMemory() {
  constexpr size_t kPiece = 1 << 20;
  for (;;) {
    void* piece = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece != MAP_FAILED) memset(piece, 1, kPiece);
  }
}

// Says to `peer` how many there could be.
[[noreturn]] void Multiply(int peer) {
  int children = 0;
  pid_t child = 0;
  while ((child = fork()) > 0) ++children;
  const std::string text = std::to_string(children) + "\n";
  if (child < 0 && write(peer, text.data(), text.size()) < 0) _exit(1);
  for (;;) poll(nullptr, 0, -1);
}

// A tenth of a second of a processor, and a line to `peer` after it.
void Compute(int peer) {
  timespec used = {};
  while (used.tv_sec == 0 && used.tv_nsec < 100'000'000) {
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  }
  if (write(peer, "done\n", 5) != 5) _exit(1);
}

[[noreturn]] void Serve(int listener) {
  for (;;) {
    int peer = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    char word = 0;
    if (peer < 0 || read(peer, &word, 1) != 1) continue;  // it was only looked whether there is one
    if (word == 'k') syscall(SYS_keyctl, 0, -3, 0);
    if (word == 'm') EatMemory();
    if (word == 'f') Multiply(peer);
    if (word == 'c') Compute(peer);
  }
}

// `processes`: as many of its own as it may see.
bool TryAll(const std::string& box, size_t processes) {
  FILE* results = fopen((box + "/results").c_str(), "we");
  if (results == nullptr) return false;
  for (const Try& one : AllTries(box.substr(0, box.rfind('/')), processes)) {
    fflush(results);  // or its children write it as well
    fprintf(results, "%s: %s\n", one.name.c_str(), Outcome(one));
  }
  return fclose(results) == 0;
}

// As vmm/cli/zygote_command.cc does it. Says "1" to `ready` once it listens.
[[noreturn]] void BeClone(cube::vmm::CloneJail jail, const SyscallFilter& filter,
                          const std::string& id, int ready) {
  signal(SIGCHLD, SIG_DFL);
  if (!jail.Enter().ok() || !filter.Apply().ok()) _exit(1);
  const std::string box = getenv("CUBE_HOME");
  if (!TryAll(box, 2)) _exit(1);
  int listener = Listen(box, id);
  if (listener < 0 || write(ready, "1", 1) != 1) _exit(1);
  close(ready);
  Serve(listener);
}

int BeZygote(const std::string& socket, const SyscallFilter& machine) {
  if (!TryAll(getenv("CUBE_HOME"), 3)) return 1;
  signal(SIGCHLD, SIG_IGN);
  auto loop = cube::vmm::EventLoop::Create();
  if (!loop.ok()) return 1;
  std::unique_ptr<cube::vmm::ControlServer> server;
  auto clone = [&](cube::vmm::ControlConnection* from, const std::string& line,
                   std::vector<cube::UniqueFd> descriptors) {
    auto request = cube::vmm::ControlRequest::Parse(line);
    auto jail = cube::vmm::CloneJail::Of(*request, &descriptors);
    int ends[2];
    if (!jail.ok() || pipe2(ends, O_CLOEXEC) < 0) return;
    if (fork() == 0) {
      server->ForgetAfterFork();
      close(ends[0]);
      BeClone(std::move(*jail), machine, *request->String("id"), ends[1]);
    }
    close(ends[1]);
    char word = 0;
    const bool is_there = read(ends[0], &word, 1) == 1;
    close(ends[0]);
    (void)from->Send(is_there ? "{\"ok\":true}" : "{\"ok\":false,\"error\":\"no clone\"}");
  };
  server = std::make_unique<cube::vmm::ControlServer>(&*loop, clone);
  if (!server->Listen(socket).ok()) return 1;
  puts("{\"event\":\"ready\"}");
  fflush(stdout);
  return loop->Run().ok() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 8) return 1;
  auto filter = SyscallFilter::Read(3);
  if (!filter.ok()) return 1;
  // PROGRAM zygote FOLDER --socket PATH --json --filters MACHINE,VCPU
  if (strcmp(argv[1], "zygote") == 0) return BeZygote(argv[4], *filter);
  // PROGRAM restore FOLDER --parked --id ID --filters MACHINE,VCPU
  const std::string box = getenv("CUBE_HOME");
  if (!filter->Apply().ok() || !TryAll(box, 2)) return 1;
  int listener = Listen(box, argv[5]);
  if (listener < 0) return 1;
  printf("{\"pid\":%d}\n", getpid());
  fflush(stdout);
  Serve(listener);
}
