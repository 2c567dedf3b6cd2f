#include "pool/jail/cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolder = "cube";
constexpr uint64_t kPeriodUs = 100'000;

// Where the hierarchy with that controller is mounted ("": the unified one); "" if nowhere.
std::string MountOf(const std::string& mounts, const std::string& controller) {
  std::istringstream lines(mounts);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string device, place, type, options;
    words >> device >> place >> type >> options;
    if (controller.empty()
            ? type == "cgroup2"
            : type == "cgroup" &&
                  ("," + options + ",").find("," + controller + ",") != std::string::npos) {
      return place;
    }
  }
  return "";
}

Status Write(const std::string& path, const std::string& value) {
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_WRONLY));
  if (write(file.get(), value.data(), value.size()) < 0) {
    return ErrnoError("writing %s to %s", value.c_str(), path.c_str());
  }
  return OkStatus();
}

Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) return ErrnoError("%s", path.c_str());
  return OkStatus();
}

// The node's folder below a unified hierarchy, with `controllers` handed down to it.
Result<std::string> MakeUnified(const std::string& mount, const std::string& key,
                                const std::string& controllers) {
  std::string folder = mount;
  CUBE_TRY(Write(folder + "/cgroup.subtree_control", controllers));
  for (const std::string& part : {std::string(kFolder), key}) {
    folder += "/" + part;
    CUBE_TRY(MakeFolder(folder));
    CUBE_TRY(Write(folder + "/cgroup.subtree_control", controllers));
  }
  return folder;
}

// KVM's own threads for a machine are in the cgroups of the process that made it (its shadow pages'
// keeper, Linux 5.x and 6.x up to 6.12). They end with the machine and by nothing else, so nobody is
// to end them or wait for them. Such a thread runs no program (proc(5), /proc/PID/exe).
bool IsKernelThread(pid_t pid) {
  char program;
  return readlink(Format("/proc/%d/exe", pid).c_str(), &program, 1) < 0 && errno == ENOENT;
}

// Those of the node's that a unified hierarchy has, as its files want to be told; "" if one that a
// node cannot do without is not there.
std::string ControllersOf(const std::string& mount) {
  auto text = ReadSmallFile(mount + "/cgroup.controllers");
  if (!text.ok()) return "";
  const std::string words = " " + text->substr(0, text->find('\n')) + " ";
  std::string found;
  for (const char* one : {"cpu", "memory", "pids", "io"}) {
    if (words.find(std::string(" ") + one + " ") != std::string::npos) {
      found += std::string(" +") + one;
    } else if (std::string_view(one) != "io") {
      return "";
    }
  }
  return found.substr(1);
}

}  // namespace

Result<Cgroups> Cgroups::Open(const std::string& key) {
  Cgroups cgroups;
  CUBE_ASSIGN(std::string mounts, ReadSmallFile("/proc/mounts", 1 << 20));
  const std::string unified = MountOf(mounts, "");
  const std::string controllers = unified.empty() ? "" : ControllersOf(unified);
  if (!controllers.empty()) {
    CUBE_ASSIGN(std::string folder, MakeUnified(unified, key, controllers));
    cgroups.has_io_ = controllers.find("+io") != std::string::npos;
    cgroups.hierarchies_.push_back({"", std::move(folder)});
    return cgroups;
  }
  for (const char* controller : {"pids", "memory", "cpu", "blkio"}) {
    std::string mount = MountOf(mounts, controller);
    if (mount.empty()) {
      if (std::string_view(controller) == "blkio") continue;
      return Errorf("no cgroup controller \"%s\" (neither version 2 nor 1)", controller);
    }
    std::string folder = mount + "/" + kFolder;
    CUBE_TRY(MakeFolder(folder));
    folder += "/" + key;
    CUBE_TRY(MakeFolder(folder));
    cgroups.hierarchies_.push_back({controller, std::move(folder)});
  }
  return cgroups;
}

std::string Cgroups::KeyOf(const std::string& home) {
  // FNV-1a.
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : home) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return Format("%016llx", static_cast<unsigned long long>(hash));
}

void Cgroups::Close() const {
  for (const Hierarchy& one : hierarchies_) {
    std::error_code failed;
    for (fs::directory_iterator each(one.folder, failed), end; !failed && each != end;
         each.increment(failed)) {
      if (each->is_directory(failed)) rmdir(each->path().c_str());
    }
    rmdir(one.folder.c_str());
  }
}

Status Cgroups::Create(const std::string& name, const CgroupLimits& limits) {
  for (const std::string& folder : Folders(name)) CUBE_TRY(MakeFolder(folder));
  return SetLimits(name, limits);
}

Status Cgroups::Set(const Hierarchy& hierarchy, const std::string& name, const char* file,
                    const std::string& value) const {
  return Write(hierarchy.folder + "/" + name + "/" + file, value);
}

Status Cgroups::SetLimits(const std::string& name, const CgroupLimits& limits) const {
  auto quota = static_cast<uint64_t>(std::max(1000.0, std::round(limits.cpus * kPeriodUs)));
  const std::string memory = std::to_string(limits.memory_bytes);
  const std::string device = Format("%u:%u", major(limits.io_device), minor(limits.io_device));
  const std::string rate = std::to_string(limits.io_bytes_per_second);
  for (const Hierarchy& one : hierarchies_) {
    const bool all = one.controller.empty();
    if ((all || one.controller == "pids") && limits.processes != 0) {
      CUBE_TRY(Set(one, name, "pids.max", std::to_string(limits.processes)));
    }
    if (all && limits.memory_bytes != 0) {
      CUBE_TRY(Set(one, name, "memory.max", memory));
      (void)Set(one, name, "memory.swap.max", "0");
    }
    if (one.controller == "memory" && limits.memory_bytes != 0) {
      CUBE_TRY(Set(one, name, "memory.limit_in_bytes", memory));
    }
    if (all && limits.cpus > 0) {
      CUBE_TRY(Set(one, name, "cpu.max",
                   Format("%llu %llu", static_cast<unsigned long long>(quota),
                          static_cast<unsigned long long>(kPeriodUs))));
    }
    if (one.controller == "cpu" && limits.cpus > 0) {
      CUBE_TRY(Set(one, name, "cpu.cfs_period_us", std::to_string(kPeriodUs)));
      CUBE_TRY(Set(one, name, "cpu.cfs_quota_us", std::to_string(quota)));
    }
    if (limits.io_bytes_per_second == 0) continue;
    if (all && has_io_) CUBE_TRY(Set(one, name, "io.max", device + " rbps=" + rate + " wbps=" + rate));
    if (one.controller == "blkio") {
      CUBE_TRY(Set(one, name, "blkio.throttle.read_bps_device", device + " " + rate));
      CUBE_TRY(Set(one, name, "blkio.throttle.write_bps_device", device + " " + rate));
    }
  }
  return OkStatus();
}

Status Cgroups::SetBehind(const std::string& name, bool behind) const {
  for (const Hierarchy& one : hierarchies_) {
    if (!one.controller.empty() && one.controller != "cpu") continue;
    CUBE_TRY(Set(one, name, "cpu.idle", behind ? "1" : "0"));
  }
  return OkStatus();
}

std::vector<std::string> Cgroups::Folders(const std::string& name) const {
  std::vector<std::string> folders;
  for (const Hierarchy& one : hierarchies_) folders.push_back(one.folder + "/" + name);
  return folders;
}

Result<std::vector<UniqueFd>> Cgroups::OpenProcs(const std::string& name) const {
  std::vector<UniqueFd> opened;
  for (const std::string& folder : Folders(name)) {
    CUBE_ASSIGN(UniqueFd file, OpenFile(folder + "/cgroup.procs", O_WRONLY));
    opened.push_back(std::move(file));
  }
  return opened;
}

std::vector<std::string> Cgroups::Names() const {
  std::vector<std::string> names;
  for (const Hierarchy& hierarchy : hierarchies_) {
    std::error_code failed;
    for (fs::directory_iterator one(hierarchy.folder, failed), end; !failed && one != end;
         one.increment(failed)) {
      std::string name = one->path().filename();
      if (one->is_directory(failed) && std::find(names.begin(), names.end(), name) == names.end()) {
        names.push_back(name);
      }
    }
  }
  return names;
}

std::vector<ProcessHandle> Cgroups::Processes(const std::string& name) const {
  const std::string path = hierarchies_[0].folder + "/" + name + "/cgroup.procs";
  auto text = ReadSmallFile(path, 1 << 20);
  std::vector<ProcessHandle> processes;
  if (!text.ok()) return processes;
  std::istringstream lines(*text);
  for (pid_t pid; lines >> pid;) {
    if (IsKernelThread(pid)) continue;
    auto process = ProcessHandle::Open(pid);
    if (process.ok()) processes.push_back(std::move(*process));
  }
  // Those whose pid has become another's since are not among them when one looks again.
  text = ReadSmallFile(path, 1 << 20);
  const std::string again = "\n" + (text.ok() ? *text : "");
  std::erase_if(processes, [&](const ProcessHandle& process) {
    return again.find("\n" + std::to_string(process.pid()) + "\n") == std::string::npos;
  });
  return processes;
}

bool Cgroups::Remove(const std::string& name) const {
  for (const ProcessHandle& process : Processes(name)) process.Kill();
  bool gone = true;
  for (const std::string& folder : Folders(name)) {
    if (rmdir(folder.c_str()) < 0 && errno != ENOENT) gone = false;
  }
  return gone;
}

uint64_t Cgroups::MemoryLimit(const std::string& name) const {
  for (const Hierarchy& one : hierarchies_) {
    if (!one.controller.empty() && one.controller != "memory") continue;
    const char* file = one.controller.empty() ? "memory.max" : "memory.limit_in_bytes";
    auto text = ReadSmallFile(one.folder + "/" + name + "/" + file);
    return text.ok() ? strtoull(text->c_str(), nullptr, 10) : 0;
  }
  return 0;
}

uint64_t Cgroups::MemoryKills(const std::string& name) const {
  for (const Hierarchy& one : hierarchies_) {
    if (!one.controller.empty() && one.controller != "memory") continue;
    const char* file = one.controller.empty() ? "memory.events" : "memory.oom_control";
    auto text = ReadSmallFile(one.folder + "/" + name + "/" + file);
    if (!text.ok()) return 0;
    std::istringstream words(*text);
    std::string word;
    for (uint64_t count; words >> word >> count;) {
      if (word == "oom_kill") return count;
    }
  }
  return 0;
}

}  // namespace cube::pool
