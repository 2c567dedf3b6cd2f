#ifndef CUBE_POOL_JAIL_JAIL_LAUNCHER_H_
#define CUBE_POOL_JAIL_JAIL_LAUNCHER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pool/jail/cgroups.h"
#include "pool/jail/demotion.h"
#include "pool/jail/uid_range.h"
#include "pool/launcher.h"

namespace cube::pool {

// Every cube-vmm in a jail: namespaces of its own, a root with nothing in it but its box, the
// snapshots it builds on, KVM and its own /proc; a user for each, no capabilities, a list of system
// calls for each kind of thread, a cgroup. `cube-jail` (main.cc) puts zygotes and restored machines
// there; a zygote puts its clones into jails within its own (vmm/cli/clone_jail.h).
//
// What a sandbox has on the host is its box, HOME/node/boxes/ID, which belongs to its user, and its
// cgroup of the same name: both, and nothing else, tell a later daemon of it.
class JailLauncher : public Launcher {
 public:
  // `home` and `program` (cube-vmm): without links in their paths. An error says what of a jail's
  // means this host or user lacks.
  static Result<std::unique_ptr<JailLauncher>> Create(asio::io_context& io, std::string home,
                                                      std::string program,
                                                      const JailConfig& config);

  Task<Outcome<ProcessHandle>> StartZygote(ZygoteSpec spec) override;
  void ForgetZygote(const std::string& name) override { Leave(name); }
  Task<Outcome<ProcessHandle>> Restore(RestoreSpec spec) override;
  Outcome<CloneRequest> PrepareClone(const std::string& zygote) override;
  bool CanFork() const override { return false; }
  Outcome<Done> Confine(const std::string& id, const ProcessHandle& process,
                        const Limits& limits) override;
  void Rest(const std::string& id) override { Leave(id, /*with_box=*/false); }
  void Forget(const std::string& id) override { Leave(id); }
  bool IsForgetting() const override { return !leaving_.empty() || OnlyReapersAreLeft(); }
  void Close() override { cgroups_.Close(); }
  std::string WhyEnded(const std::string& id, const ProcessHandle& process) const override;
  Outcome<UniqueFd> OpenVolume(const std::string& id, const std::string& folder) const override;
  std::string WritePath(const std::string& id, const std::string& path) const override;
  Outcome<Done> Collect(const std::string& id, const std::string& path,
                        const std::string& base) override;
  Task<Outcome<Done>> Show(const ProcessHandle& process, std::string folder) override;
  std::string ZygoteSocket(const std::string& name) const override;
  std::string ControlPath(const std::string& id) const override { return RunFile(id, ".sock"); }
  std::string LogPath(const std::string& id) const override { return RunFile(id, ".log"); }
  std::string VsockPath(const std::string& id) const override { return RunFile(id, ".vsock"); }
  std::vector<ProcessHandle> FindAll() const override;
  std::vector<std::string> FindIds() const override;
  std::vector<std::string> FindZygotes() const override;

 private:
  JailLauncher(asio::io_context& io, std::string home, std::string program, JailConfig config,
               Cgroups cgroups)
      : io_(io),
        home_(std::move(home)),
        program_(std::move(program)),
        config_(config),
        cgroups_(std::move(cgroups)),
        uids_(config.first_uid, config.uids) {}

  // What of a snapshot has to be visible: the folders of its chain, and the files of its disks.
  struct Needed {
    std::vector<std::string> paths;
    uint64_t memory_bytes = 0;
    bool has_disk = false;
  };
  Result<Needed> NeedsOf(const std::string& folder) const;
  Status WriteFilters() const;
  Status FindBoxes();
  std::string Box(const std::string& name) const { return home_ + "/node/boxes/" + name; }
  std::string RunFile(const std::string& id, const char* suffix) const {
    return Box(id) + "/run/" + id + suffix;
  }
  // Where a machine sees its box, and a zygote.
  std::string Place() const { return home_ + "/box"; }
  std::string ZygotePlace() const { return home_ + "/zygote"; }
  std::string FilterPath(const char* name) const { return home_ + "/node/filters/" + name; }
  CgroupLimits LimitsOf(uint64_t memory_bytes) const;
  Status MakeBox(const std::string& name, uint32_t uid) const;
  // Options of `cube-jail` for a process with the box and cgroup `name`.
  std::vector<std::string> JailWords(const std::string& name, const std::string& place,
                                     const Needed& needed) const;
  Task<Outcome<ProcessHandle>> Start(std::vector<std::string> words, std::string member);
  // The last machines have ended, and the processes that had only waited for that have yet to.
  bool OnlyReapersAreLeft() const;
  // The user of the box of `name`, which is made if it is not there. No process has it.
  Task<Outcome<uint32_t>> ReuseBox(std::string name);
  // What `name` has goes as soon as none of its processes is left; they are ended.
  void Leave(const std::string& name, bool with_box = true);
  bool TryToLeave(const std::string& name, bool with_box);
  Task<void> AwaitLeaving();
  // As long as there are machines.
  Task<void> LookAtBusy();

  asio::io_context& io_;
  std::string home_, program_, helper_;
  JailConfig config_;
  Cgroups cgroups_;
  UidRange uids_;
  dev_t disk_ = 0;     // that home_ is on
  std::string ring0_;  // what a process has said of the host
  std::map<std::string, Needed> zygotes_;
  std::map<std::string, bool> leaving_;  // with its box?
  bool awaiting_ = false;
  Demotion demotion_;
  bool looking_ = false;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_JAIL_LAUNCHER_H_
