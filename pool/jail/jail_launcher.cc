#include "pool/jail/jail_launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/monotonic.h"
#include "pool/jail/collect.h"
#include "pool/jail/filter_programs.h"
#include "pool/jail/host_check.h"
#include "pool/jail/place.h"
#include "pool/jail/volume_mount.h"
#include "pool/program_output.h"
#include "pool/sandbox_id.h"
#include "pool/spawn.h"
#include "snapshot/manifest.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr size_t kMaxDepth = 100;
// Of a machine beside its guest's memory: the VMM, page tables, shadows of page tables, page cache.
constexpr uint64_t kVmmBytes = uint64_t{128} << 20;
constexpr uint32_t kZygoteProcesses = 2048;
// How often it is looked whether the last process of something has ended.
constexpr milliseconds kLeavingPause(20);
constexpr milliseconds kReusePause(2);
// How often it is looked which machines compute.
constexpr milliseconds kBusyPause(500);
constexpr int kMaxTries = 1000;
constexpr const char* kReapers = "reapers";

bool IsSandboxId(const std::string& name) { return vmm::CheckSandboxId(name).ok(); }

}  // namespace

Result<std::unique_ptr<JailLauncher>> JailLauncher::Create(asio::io_context& io, std::string home,
                                                           std::string program,
                                                           const JailConfig& config) {
  CUBE_TRY(CheckHost());
  CUBE_ASSIGN(std::string helper, FindHelper());
  CUBE_ASSIGN(program, FindProgram(program));
  CUBE_ASSIGN(Cgroups cgroups, Cgroups::Open(Cgroups::KeyOf(home)));
  std::unique_ptr<JailLauncher> launcher(
      new JailLauncher(io, std::move(home), std::move(program), config, std::move(cgroups)));
  launcher->helper_ = std::move(helper);
  std::error_code failed;
  for (const char* folder : {"/node/boxes", "/node/root", "/node/filters"}) {
    fs::create_directories(launcher->home_ + folder, failed);
    if (failed) return Errorf("%s: %s", folder, failed.message().c_str());
  }
  fs::permissions(launcher->home_ + "/node", fs::perms::owner_all, failed);
  CUBE_ASSIGN(launcher->disk_, DiskOf(launcher->home_));
  CUBE_TRY(launcher->WriteFilters());
  CUBE_TRY(launcher->cgroups_.Create(kReapers, {}));
  CUBE_TRY(launcher->FindBoxes());
  return launcher;
}

Status JailLauncher::WriteFilters() const {
  for (auto [name, kind] :
       {std::pair("zygote", FilterKind::kZygote), std::pair("machine", FilterKind::kMachine),
        std::pair("machine-disk", FilterKind::kMachineWithDisk),
        std::pair("vcpu", FilterKind::kVcpu)}) {
    CUBE_ASSIGN(std::string program, CompileFilter(kind));
    CUBE_ASSIGN(UniqueFd file, OpenFile(FilterPath(name), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    CUBE_TRY(WriteAll(file.get(),
                      {reinterpret_cast<const uint8_t*>(program.data()), program.size()}, name));
  }
  return OkStatus();
}

// Whom a box belongs to has it still, whatever daemon has made it.
Status JailLauncher::FindBoxes() {
  std::error_code failed;
  for (fs::directory_iterator one(home_ + "/node/boxes", failed), end; !failed && one != end;
       one.increment(failed)) {
    struct stat info;
    if (lstat(one->path().c_str(), &info) == 0) uids_.Mark(info.st_uid);
  }
  if (failed) return Errorf("%s/node/boxes: %s", home_.c_str(), failed.message().c_str());
  return OkStatus();
}

Result<JailLauncher::Needed> JailLauncher::NeedsOf(const std::string& folder) const {
  Needed needed;
  std::string at = fs::path(folder).lexically_normal();
  for (size_t depth = 0; !at.empty(); ++depth) {
    // A manifest of a machine's making must not show it something else.
    const fs::path parent = fs::path(at).parent_path();
    if (parent != home_ + "/templates" && parent != home_ + "/snapshots") {
      return Errorf("%s is neither a template nor a snapshot of this node", at.c_str());
    }
    if (depth == kMaxDepth) return Errorf("%s: too long a chain of snapshots", folder.c_str());
    CUBE_ASSIGN(snapshot::Manifest manifest, snapshot::Manifest::Load(at));
    if (depth == 0) needed.memory_bytes = manifest.memory_bytes;
    needed.paths.push_back(at);
    for (const snapshot::DiskHardware& disk : manifest.hardware.disks) {
      needed.has_disk = true;
      for (const snapshot::OutsideFile& file : disk.files) needed.paths.push_back(file.path);
    }
    if (manifest.parent_path.empty()) break;
    at = (fs::path(at) / manifest.parent_path).lexically_normal();
  }
  std::sort(needed.paths.begin(), needed.paths.end());
  needed.paths.erase(std::unique(needed.paths.begin(), needed.paths.end()), needed.paths.end());
  return needed;
}

CgroupLimits JailLauncher::LimitsOf(uint64_t memory_bytes) const {
  CgroupLimits limits;
  // While a snapshot is written, what the guest changes is there twice.
  limits.memory_bytes = 2 * memory_bytes + kVmmBytes;
  limits.processes = config_.processes;
  limits.io_bytes_per_second = config_.io_mib_per_second << 20;
  limits.io_device = disk_;
  return limits;
}

Status JailLauncher::MakeBox(const std::string& name, uint32_t uid) const {
  const std::string box = Box(name);
  if (mkdir(box.c_str(), 0700) < 0) return ErrnoError("%s", box.c_str());
  if (chown(box.c_str(), uid, uid) < 0) return ErrnoError("%s", box.c_str());
  return OkStatus();
}

std::vector<std::string> JailLauncher::JailWords(const std::string& name, const std::string& place,
                                                 const Needed& needed) const {
  std::vector<std::string> words = {helper_, "--root", home_ + "/node/root", "--box",
                                    Box(name) + "=" + place};
  for (const std::string& path : needed.paths) words.insert(words.end(), {"--show", path});
  for (const std::string& folder : cgroups_.Folders(name)) {
    words.insert(words.end(), {"--cgroup", folder});
  }
  words.insert(words.end(),
               {"--filters", FilterPath("zygote") + ":" +
                                 FilterPath(needed.has_disk ? "machine-disk" : "machine") + ":" +
                                 FilterPath("vcpu")});
  words.insert(words.end(), {"--env", "CUBE_HOME=" + place});
  words.insert(words.end(), {"--env", "CUBE_NODE=" + home_ + "/node"});
  if (!ring0_.empty()) words.insert(words.end(), {"--env", "CUBE_RING0=" + ring0_});
  return words;
}

Task<Outcome<ProcessHandle>> JailLauncher::Start(std::vector<std::string> words,
                                                 std::string member) {
  POOL_CO_ASSIGN(Spawned spawned, SpawnProcess(words, {}));
  ProgramOutput output(io_, std::move(spawned.output), fs::path(program_).filename());
  POOL_CO_ASSIGN(json::object jailed, co_await output.Await("jailed"));
  const json::value& pid = jailed.at("jailed");
  auto process = ProcessHandle::Open(pid.is_int64() ? static_cast<pid_t>(pid.get_int64()) : -1);
  if (!process.ok()) co_return process.error();
  // It is known here and in its cgroup: it may begin. Without this, it ends with this daemon.
  if (write(spawned.input.get(), "g", 1) != 1) co_return ErrnoError("cube-jail");
  // What has not come up is ended with its cgroup.
  POOL_CO_ASSIGN(json::object said, co_await output.Await(std::move(member)));
  const json::value* ring0 = said.if_contains("ring0");
  if (ring0 != nullptr && ring0->is_string()) ring0_ = std::string(ring0->get_string());
  co_return std::move(*process);
}

Task<Outcome<ProcessHandle>> JailLauncher::StartZygote(ZygoteSpec spec) {
  POOL_CO_ASSIGN(Needed needed, NeedsOf(spec.folder));
  CgroupLimits limits = LimitsOf(2 * needed.memory_bytes);
  limits.processes = kZygoteProcesses;
  Status made = MakeBox(spec.name, uids_.first());
  if (made.ok()) made = cgroups_.Create(spec.name, limits);
  if (!made.ok()) {
    Leave(spec.name);
    co_return made.error();
  }
  zygotes_[spec.name] = needed;
  std::vector<std::string> words = JailWords(spec.name, ZygotePlace(), needed);
  for (const std::string& folder : cgroups_.Folders(kReapers)) {
    words.insert(words.end(), {"--reaper-cgroup", folder});
  }
  words.insert(words.end(), {"--clone-place", Place(), "--env", "CUBE_CLONE_HOME=" + Place()});
  words.insert(words.end(),
               {"--zygote", "--users", Format("%u:%u:0", uids_.first(), uids_.count())});
  words.insert(words.end(), {"--", program_, "zygote", spec.folder, "--socket",
                             ZygotePlace() + "/zygote.sock", "--json", "--filters", "3,4"});
  auto started = co_await Start(std::move(words), "event");
  if (!started.ok()) Leave(spec.name);
  co_return std::move(started);
}

Task<Outcome<ProcessHandle>> JailLauncher::Restore(RestoreSpec spec) {
  POOL_CO_ASSIGN(Needed needed, NeedsOf(spec.folder));
  POOL_CO_ASSIGN(uint32_t uid, co_await ReuseBox(spec.id));
  Status made = cgroups_.Create(spec.id, LimitsOf(needed.memory_bytes));
  if (!made.ok()) {
    Rest(spec.id);
    co_return made.error();
  }
  std::vector<std::string> words = JailWords(spec.id, Place(), needed);
  words.insert(words.end(), {"--users", Format("%u:1:1000", uid)});
  words.insert(words.end(), {"--", program_, "restore", spec.folder, "--parked", "--id", spec.id,
                             "--filters", "3,4"});
  auto started = co_await Start(std::move(words), "pid");
  if (!started.ok()) Rest(spec.id);
  co_return std::move(started);
}

Task<Outcome<uint32_t>> JailLauncher::ReuseBox(std::string name) {
  leaving_.erase(name);
  // What is left of a machine that was paused may need a moment to go.
  asio::steady_timer pause(io_);
  for (int tries = 0; !cgroups_.Remove(name); ++tries) {
    if (tries == kMaxTries) {
      co_return Refuse(Fault::kInternal, "a process of sandbox %s does not end", name.c_str());
    }
    co_await Sleep(pause, kReusePause);
  }
  struct stat info;
  if (lstat(Box(name).c_str(), &info) == 0) co_return static_cast<uint32_t>(info.st_uid);
  POOL_CO_ASSIGN(uint32_t uid, uids_.Take());
  Status made = MakeBox(name, uid);
  if (made.ok()) co_return uid;
  uids_.Give(uid);
  co_return made.error();
}

Outcome<CloneRequest> JailLauncher::PrepareClone(const std::string& zygote) {
  CloneRequest request;
  POOL_ASSIGN(request.id, NewSandboxId());
  POOL_ASSIGN(uint32_t uid, uids_.Take());
  const std::string& id = request.id;
  Status made = MakeBox(id, uid);
  if (!made.ok()) {
    uids_.Give(uid);
    return made.error();
  }
  made = cgroups_.Create(id, LimitsOf(zygotes_[zygote].memory_bytes));
  auto box = OpenTree(Box(id), /*writable=*/true);
  auto procs = cgroups_.OpenProcs(id);
  if (made.ok() && !box.ok()) made = box.error();
  if (made.ok() && !procs.ok()) made = procs.error();
  if (!made.ok()) {
    Leave(id);
    return made.error();
  }
  JsonWriter line;
  line.BeginObject().Key("op").String("clone").Key("id").String(id);
  line.Key("uid").Uint(uid - uids_.first()).Key("cgroups").Uint(procs->size()).EndObject();
  request.line = line.text();
  request.descriptors.push_back(std::move(*box));
  for (UniqueFd& one : *procs) request.descriptors.push_back(std::move(one));
  return request;
}

Outcome<Done> JailLauncher::Confine(const std::string& id, const ProcessHandle& process,
                                    const Limits& limits) {
  CgroupLimits own;
  own.memory_bytes = limits.memory_mib << 20;
  own.cpus = limits.cpus;
  POOL_TRY(cgroups_.SetLimits(id, own));
  demotion_.Add(id, process.pid());
  if (!std::exchange(looking_, true)) Spawn(io_, LookAtBusy());
  return Done();
}

Task<void> JailLauncher::LookAtBusy() {
  asio::steady_timer pause(io_);
  while (!demotion_.empty()) {
    for (const Demotion::Change& change : demotion_.Look(MonotonicNow())) {
      // Kernels before 5.15 know no such thing, and serve all alike.
      (void)cgroups_.SetBehind(change.id, change.is_behind);
    }
    co_await Sleep(pause, kBusyPause);
  }
  looking_ = false;
}

std::string JailLauncher::WhyEnded(const std::string& id, const ProcessHandle& process) const {
  if (cgroups_.MemoryKills(id) != 0) {
    return Format("memory limit: it had used all %llu MiB that it may have",
                  static_cast<unsigned long long>(cgroups_.MemoryLimit(id) >> 20));
  }
  if (process.HowItEnded() == Format("killed by signal %d", SIGSYS)) {
    return "it made a system call that its jail does not allow";
  }
  return "";
}

Outcome<UniqueFd> JailLauncher::OpenVolume(const std::string& id, const std::string& folder) const {
  struct stat info;
  if (lstat(Box(id).c_str(), &info) < 0) return ErrnoError("%s", Box(id).c_str());
  POOL_ASSIGN(UniqueFd mount, MountVolume(folder, info.st_uid));
  return mount;
}

std::string JailLauncher::WritePath(const std::string&, const std::string& path) const {
  return Place() + "/" + std::string(fs::path(path).filename());
}

Outcome<Done> JailLauncher::Collect(const std::string& id, const std::string& path,
                                    const std::string& base) {
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) return Done();
  POOL_TRY(CollectSnapshot(Box(id), path, base));
  return Done();
}

Task<Outcome<Done>> JailLauncher::Show(const ProcessHandle& process, std::string folder) {
  POOL_CO_ASSIGN(Needed needed, NeedsOf(folder));
  std::vector<std::string> words = {helper_, "show", std::to_string(process.pid())};
  words.insert(words.end(), needed.paths.begin(), needed.paths.end());
  POOL_CO_ASSIGN(Spawned spawned, SpawnProcess(words, {}));
  ProgramOutput output(io_, std::move(spawned.output), "cube-jail");
  auto said = co_await output.Await("shown");
  if (!said.ok()) co_return said.refusal();
  co_return Done();
}

std::string JailLauncher::ZygoteSocket(const std::string& name) const {
  return Box(name) + "/zygote.sock";
}

std::vector<ProcessHandle> JailLauncher::FindAll() const {
  std::vector<ProcessHandle> all;
  for (const std::string& name : cgroups_.Names()) {
    if (name == kReapers) continue;
    for (ProcessHandle& process : cgroups_.Processes(name)) all.push_back(std::move(process));
  }
  return all;
}

std::vector<std::string> JailLauncher::FindIds() const {
  std::vector<std::string> names = cgroups_.Names();
  std::set<std::string> ids(names.begin(), names.end());
  std::error_code failed;
  for (fs::directory_iterator one(home_ + "/node/boxes", failed), end; !failed && one != end;
       one.increment(failed)) {
    ids.insert(one->path().filename());
  }
  std::erase_if(ids, [this](const std::string& id) {
    auto leaving = leaving_.find(id);
    return !IsSandboxId(id) || (leaving != leaving_.end() && leaving->second);
  });
  return {ids.begin(), ids.end()};
}

std::vector<std::string> JailLauncher::FindZygotes() const {
  std::set<std::string> names;
  for (const std::string& name : cgroups_.Names()) names.insert(name);
  std::error_code failed;
  for (fs::directory_iterator one(home_ + "/node/boxes", failed), end; !failed && one != end;
       one.increment(failed)) {
    names.insert(one->path().filename());
  }
  std::erase_if(names, [](const std::string& name) { return !name.starts_with("zygote-"); });
  return {names.begin(), names.end()};
}

bool JailLauncher::OnlyReapersAreLeft() const {
  return cgroups_.Names() == std::vector<std::string>{kReapers} &&
         !cgroups_.Processes(kReapers).empty();
}

bool JailLauncher::TryToLeave(const std::string& name, bool with_box) {
  if (!cgroups_.Remove(name)) return false;
  struct stat info;
  if (!with_box || lstat(Box(name).c_str(), &info) < 0) return true;
  std::error_code failed;
  fs::remove_all(Box(name), failed);
  if (failed) {
    spdlog::warn("deleting {}: {}", Box(name), failed.message());
    return false;
  }
  uids_.Give(info.st_uid);
  return true;
}

void JailLauncher::Leave(const std::string& name, bool with_box) {
  zygotes_.erase(name);
  demotion_.Remove(name);
  if (TryToLeave(name, with_box)) {
    leaving_.erase(name);
    return;
  }
  leaving_[name] = with_box;
  if (!std::exchange(awaiting_, true)) Spawn(io_, AwaitLeaving());
}

Task<void> JailLauncher::AwaitLeaving() {
  asio::steady_timer pause(io_);
  while (!leaving_.empty()) {
    co_await Sleep(pause, kLeavingPause);
    std::erase_if(leaving_, [this](const auto& one) { return TryToLeave(one.first, one.second); });
  }
  awaiting_ = false;
}

}  // namespace cube::pool
