#include "pool/jail/host_check.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

struct Kind {
  int flag;
  const char* name;
};
constexpr Kind kKinds[] = {
    {CLONE_NEWUSER, "user"},   {CLONE_NEWNS, "mount"}, {CLONE_NEWPID, "PID"},
    {CLONE_NEWNET, "network"}, {CLONE_NEWIPC, "IPC"},  {CLONE_NEWUTS, "UTS"},
};

// 0, or why unshare(2) does not make one.
int CannotMake(int flag) {
  pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) _exit(unshare(flag) < 0 ? errno : 0);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

}  // namespace

Status CheckHost() {
  if (geteuid() != 0) {
    return Errorf("a jail needs root, this is user %u; --no-jail runs machines without", geteuid());
  }
  for (const Kind& kind : kKinds) {
    errno = CannotMake(kind.flag);
    if (errno == 0) continue;
    return Error(
        ErrnoError("a jail needs %s namespaces, which cannot be made here", kind.name).message() +
        "; --no-jail runs machines without");
  }
  return OkStatus();
}

Result<std::string> FindHelper() {
  std::error_code failed;
  const char* named = getenv("CUBE_JAIL");
  if (named != nullptr) return fs::absolute(named, failed).string();
  const fs::path folder = fs::read_symlink("/proc/self/exe", failed).parent_path();
  for (const char* place : {"cube-jail", "jail/cube-jail"}) {
    fs::path path = folder / place;
    if (access(path.c_str(), X_OK) == 0) return path.string();
  }
  return Errorf("there is no cube-jail in %s", folder.c_str());
}

Result<std::string> FindProgram(const std::string& name) {
  std::string found = name;
  if (name.find('/') == std::string::npos) {
    const char* path = getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "");
    for (std::string folder; std::getline(folders, folder, ':');) {
      if (access((folder + "/" + name).c_str(), X_OK) != 0) continue;
      found = folder + "/" + name;
      break;
    }
  }
  std::error_code failed;
  const fs::path real = fs::canonical(found, failed);
  struct stat info;
  if (failed || stat(real.c_str(), &info) < 0)
    return Errorf("there is no program %s", name.c_str());
  constexpr mode_t kForAll = S_IROTH | S_IXOTH;
  if (!S_ISREG(info.st_mode) || (info.st_mode & kForAll) != kForAll) {
    return Errorf("%s: not a program that everybody may read and execute, as jailed users must",
                  real.c_str());
  }
  return real.string();
}

Result<dev_t> DiskOf(const std::string& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) < 0) return ErrnoError("%s", folder.c_str());
  const std::string block = Format("/sys/dev/block/%u:%u", major(info.st_dev), minor(info.st_dev));
  std::error_code failed;
  if (!fs::exists(block, failed)) return dev_t{0};
  if (!fs::exists(block + "/partition", failed)) return info.st_dev;
  auto text = ReadSmallFile(fs::canonical(block, failed).parent_path().string() + "/dev");
  unsigned first = 0, second = 0;
  if (!text.ok() || sscanf(text->c_str(), "%u:%u", &first, &second) != 2) return dev_t{0};
  return makedev(first, second);
}

}  // namespace cube::pool
