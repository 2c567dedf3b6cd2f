// In place of cube-vmm, in a jail: tries what a machine that has been taken over would, and writes
// into its box, in the file `results`, of each try whether it was refused. Then it waits at its
// control socket for a byte: 'k' for a system call that is not allowed, 'm' to eat memory.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
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
#include <string>
#include <vector>

#include "vmm/syscall_filter.h"

namespace {

namespace fs = std::filesystem;
using cube::vmm::SyscallFilter;

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
    if (entry.path() != home + "/box" && entry.path() != home + "/templates") return true;
  }
  return false;
}

bool SeesOtherProcesses() {
  size_t processes = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    if (isdigit(entry.path().filename().c_str()[0]) != 0) ++processes;
  }
  return processes > 2;  // this one, and the child that looks
}

Try Call(const char* name, long number, long a = 0, long b = 0, long c = 0, long d = 0,
         long e = 0) {
  return {name, [=] { return syscall(number, a, b, c, d, e) >= 0; }};
}

std::vector<Try> AllTries(const std::string& home, const std::string& other) {
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
      {"other processes", [] { return SeesOtherProcesses(); }},
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

char Listen(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(listener, 1) < 0) {
    return 0;
  }
  printf("{\"pid\":%d}\n", getpid());
  fflush(stdout);
  int peer = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  char word = 0;
  return read(peer, &word, 1) == 1 ? word : 0;
}

[[noreturn]] void EatMemory() {
  constexpr size_t kPiece = 1 << 20;
  for (;;) {
    void* piece = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece != MAP_FAILED) memset(piece, 1, kPiece);
  }
}

}  // namespace

int main(int argc, char** argv) {
  // PROGRAM restore FOLDER --parked --id ID --filters MACHINE,VCPU
  if (argc < 8) return 1;
  const std::string id = argv[5], box = getenv("CUBE_HOME");
  const std::string home = box.substr(0, box.rfind('/'));
  auto filter = SyscallFilter::Read(3);
  if (!filter.ok() || !filter->Apply().ok()) return 1;
  FILE* results = fopen((box + "/results").c_str(), "we");
  if (results == nullptr) return 1;
  for (const Try& one : AllTries(home, "0123456789abcdef0123")) {
    fflush(results);
    fprintf(results, "%s: %s\n", one.name.c_str(), Outcome(one));
  }
  fflush(results);
  if (mkdir((box + "/run").c_str(), 0700) < 0) return 1;
  char word = Listen(box + "/run/" + id + ".sock");
  if (word == 'k') syscall(SYS_keyctl, 0, -3, 0);
  if (word == 'm') EatMemory();
  return 0;
}
