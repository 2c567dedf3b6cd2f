// The node's cgroups where a host has version 2 of them, which here is a guest. Says what of it is
// not as it should be, or "as they should be".
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_io.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "pool/jail/cgroups.h"

namespace {

using cube::pool::CgroupLimits;
using cube::pool::Cgroups;

constexpr const char* kMount = "/tmp/cgroups";
constexpr const char* kKey = "0123456789abcdef";
constexpr size_t kMiB = 1 << 20;

bool failed = false;

void Check(bool is_so, const std::string& what) {
  if (is_so) return;
  printf("not so: %s\n", what.c_str());
  failed = true;
}

void Must(const cube::Status& status) {
  if (status.ok()) return;
  printf("%s\n", status.error().message().c_str());
  exit(1);
}

template <typename T>
T Must(cube::Result<T> result) {
  if (!result.ok()) {
    printf("%s\n", result.error().message().c_str());
    exit(1);
  }
  return std::move(result).value();
}

std::string Read(const Cgroups& cgroups, const std::string& name, const char* file) {
  auto text = cube::ReadSmallFile(cgroups.Folders(name)[0] + "/" + file);
  return text.ok() ? *text : text.error().message();
}

// In a process that joins the cgroup as one in a jail does, by descriptors that it was given.
pid_t Start(const Cgroups& cgroups, const std::string& name, const std::function<int()>& what) {
  auto procs = Must(cgroups.OpenProcs(name));
  const pid_t pid = fork();
  if (pid != 0) return pid;
  for (const cube::UniqueFd& each : procs) {
    if (write(each.get(), "0", 1) != 1) _exit(100);
  }
  procs.clear();
  _exit(what());
}

int End(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

int UseMemory() {
  constexpr size_t kSize = 64 * kMiB;
  void* memory = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 101;
  for (size_t at = 0; at < kSize; at += 4096) static_cast<volatile char*>(memory)[at] = 1;
  return 0;
}

int CountForks() {
  int forks = 0;
  for (; forks < 20; ++forks) {
    const pid_t pid = fork();
    if (pid < 0) break;
    if (pid == 0) {
      pause();
      _exit(0);
    }
  }
  return errno == EAGAIN ? forks : 102;
}

void Limits(Cgroups& cgroups) {
  CgroupLimits limits;
  limits.memory_bytes = 16 * kMiB;
  limits.cpus = 0.5;
  limits.processes = 4;
  Must(cgroups.Create("one", limits));
  Check(Read(cgroups, "one", "memory.max") == "16777216\n", "memory.max is that of the limits");
  Check(Read(cgroups, "one", "cpu.max") == "50000 100000\n", "cpu.max is that of the limits");
  Check(cgroups.MemoryLimit("one") == 16 * kMiB, "the limit is found again");
  int status = End(Start(cgroups, "one", UseMemory));
  Check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "too much memory is the end");
  Check(cgroups.MemoryKills("one") == 1, "the end is counted");
  status = End(Start(cgroups, "one", CountForks));
  Check(WIFEXITED(status) && WEXITSTATUS(status) == 3, "four processes and no more");

  Must(cgroups.SetBehind("one", true));
  Check(Read(cgroups, "one", "cpu.idle") == "1\n", "it is behind");
  Must(cgroups.SetBehind("one", false));
  Check(Read(cgroups, "one", "cpu.idle") == "0\n", "it is not behind");

  limits = {};
  limits.memory_bytes = 96 * kMiB;
  Must(cgroups.SetLimits("one", limits));
  Check(Read(cgroups, "one", "cpu.max") == "50000 100000\n", "what is not set stays");
}

// As KVM's are on hosts that have them in the cgroups of a machine. Which of the kernel's may be
// moved it says itself.
void KernelThreads(Cgroups& cgroups) {
  constexpr pid_t kMaxPid = 200;
  Must(cgroups.Create("kernel", {}));
  auto procs = Must(cgroups.OpenProcs("kernel"));
  pid_t moved = 0;
  for (pid_t pid = 3; pid < kMaxPid && moved == 0; ++pid) {
    auto status = cube::ReadSmallFile(cube::Format("/proc/%d/status", pid));
    if (!status.ok() || status->find("\nPPid:\t2\n") == std::string::npos) continue;
    const std::string word = std::to_string(pid);
    if (write(procs[0].get(), word.data(), word.size()) > 0) moved = pid;
  }
  Check(moved != 0, "a thread of the kernel's can be moved");
  Check(Read(cgroups, "kernel", "cgroup.procs") == std::to_string(moved) + "\n", "it is there");
  Check(cgroups.Processes("kernel").empty(), "it is not a process");
  Check(!cgroups.Remove("kernel"), "its cgroup stays while it is there");
  auto root = Must(cube::OpenFile(std::string(kMount) + "/cgroup.procs", O_WRONLY));
  const std::string word = std::to_string(moved);
  Check(write(root.get(), word.data(), word.size()) > 0, "it goes back");
  procs.clear();
  Check(cgroups.Remove("kernel"), "its cgroup goes");
}

void Ends(Cgroups& cgroups) {
  Check(!cgroups.Processes("one").empty(), "forks of a process that has ended are found");
  while (!cgroups.Remove("one")) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
  }
  Check(access(cgroups.Folders("one")[0].c_str(), F_OK) < 0, "it is gone");
  Check(cgroups.Names().empty(), "no name is left");
  Must(cgroups.Create("two", {}));
  Check(Must(Cgroups::Open(kKey)).Names() == std::vector<std::string>{"two"},
        "a later daemon finds it");
  cgroups.Close();
  Check(access((std::string(kMount) + "/cube/" + kKey).c_str(), F_OK) < 0,
        "the node's own is gone");
}

}  // namespace

int main() {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  mkdir(kMount, 0755);
  if (mount("none", kMount, "cgroup2", 0, nullptr) < 0) {
    printf("mounting cgroup2: %s\n", strerror(errno));
    return 1;
  }
  Cgroups cgroups = Must(Cgroups::Open(kKey));
  Check(cgroups.Folders("x").size() == 1, "there is one hierarchy");
  KernelThreads(cgroups);
  Limits(cgroups);
  Ends(cgroups);
  if (!failed) printf("as they should be\n");
  return failed;
}
