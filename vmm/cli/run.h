#ifndef CUBE_VMM_CLI_RUN_H_
#define CUBE_VMM_CLI_RUN_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/cli/guest_session.h"
#include "vmm/cli/machine_inbox.h"
#include "vmm/cli/memory_trimmer.h"
#include "vmm/cli/prepared.h"
#include "vmm/cli/run_io.h"
#include "vmm/cli/run_options.h"
#include "vmm/cli/run_timeline.h"
#include "vmm/cli/sandbox_control.h"
#include "vmm/cli/sandbox_log.h"
#include "vmm/cli/template_cache.h"
#include "vmm/identity.h"
#include "vmm/machine.h"

namespace cube::vmm {

// The process of one sandbox: the machine, the session with its agent, its control socket, and what
// ends it. On the event loop's thread.
class Run {
 public:
  // `start` is when the run began, CLOCK_MONOTONIC nanoseconds.
  Run(const RunOptions& options, uint64_t start);
  // With what has been found out before.
  Run(const RunOptions& options, Prepared prepared, uint64_t start);

  // Makes the machine and runs it to its end: the process's exit status. It also returns, and the
  // status means nothing then, in each child of a fork of the sandbox.
  Result<int> Execute();
  bool forked() const { return newborn_.has_value(); }
  // In such a child: a sandbox of its own that goes on with the machine of `parent`, which is left
  // as it is, since its sockets, devices and threads are those of another process.
  static std::unique_ptr<Run> GoOnAsChild(std::unique_ptr<Run> parent);
  // Makes the machine, which never runs, and lets it go: an error says why it cannot be made here.
  Status Rehearse();
  // Tells who waits for this sandbox, if anybody still does, that there will be none.
  void ReportFailure(const Error& error);

 private:
  Status Prepare();
  Status AdoptHost();
  Status CheckMemory() const;
  // Its id, and its log if it has one.
  Status MakeId();
  Status MakeMachine();
  Result<MadeDevices> MakeOwnDevices();
  MachineEvents MakeEvents();
  Status WatchSignals();
  Status WatchTimeout();
  // Ends the run with that status and reason after so many seconds.
  Status LimitTime(std::optional<Timer>* timer, double seconds, int status,
                   const std::string& reason);
  Status SetUpControl();
  Status OnRolledBack();
  Status Attach();
  // The answer to a request for a start; empty if it comes once the agent is ready.
  Result<std::string> OnStart(const ControlRequest& request, ControlConnection* from,
                              std::vector<UniqueFd> descriptors);
  Status Plug(std::vector<UniqueFd> descriptors);
  // Takes from the end of `descriptors` the folders of the volumes in given_.
  Status PlugVolumes(std::vector<UniqueFd>* descriptors);
  void SayParked();
  // To who waits for this sandbox, who hears nothing more after.
  void Report(const std::string& line);
  Status CheckForkable();
  Status CheckSettled();

  void MakeSession();
  Status StartSession();
  Result<GuestCommand> MakeCommand() const;
  std::string HostName() const;
  Status WriteOwnIdentity();
  Status Begin();
  Status Freeze();

  void OnCommand(abi::Command command, uint32_t argument);
  // `failure`: kReady's argument.
  void OnReady(uint32_t failure);
  void OnStop(const StopReason& reason);
  void OnMemoryLost(const Error& error);
  void PumpSession();
  void Finish(int status, const std::string& reason);
  Status WriteProfile(const GuestProfiler& profiler);

  // Without a command: a machine that is used by its control socket.
  bool serves() const {
    return options_.serve && options_.command.empty() && !options_.own_command;
  }
  // What the snapshot that this is a clone of says about programs.
  snapshot::Defaults TemplateDefaults() const {
    return base_ != nullptr ? base_->manifest().defaults : snapshot::Defaults{};
  }

  const RunOptions options_;
  RunTimeline time_;
  UniqueFd claim_;  // its files are those of a living process until all below is gone
  bool interactive_;
  std::optional<EventLoop> loop_;
  UniqueFd signals_;
  std::optional<Timer> timeout_;
  std::optional<Timer> birth_limit_;
  SandboxLog log_;
  RunIo io_;
  MachineInbox inbox_;
  MemoryTrimmer trimmer_;
  bool exiting_ = false;
  bool finished_ = false;
  // Threads wait for ever for a page of the guest's that cannot be loaded.
  std::atomic<bool> memory_lost_ = false;
  int status_ = kStatusVmmError;
  int exit_status_ = 0;
  std::string reason_;
  std::string dump_;  // for the one who looks into it; the reason stays one line
  Ring0Mode ring0_ = Ring0Mode::kNative;
  std::optional<Kvm> kvm_;
  MachineConfig config_;
  snapshot::Hardware hardware_;
  std::string vsock_;  // where host clients find the guest; empty without a vsock
  std::string id_;
  std::shared_ptr<const snapshot::Snapshot> base_;
  std::optional<Prepared::Inherited> inherited_;
  UniqueFd report_;
  std::optional<Rehearsal> rehearsal_;
  std::optional<TemplateCache> templates_;
  // The guest boots to become a template. Set before the vCPUs run, taken back when none does.
  bool freezing_ = false;

  // The machine's vCPUs use what stands above; what stands below uses the machine.
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<GuestSession> session_;
  std::unique_ptr<SandboxControl> control_;
  uint64_t start_asked_ = 0;              // when, of a parked machine
  ControlConnection* starter_ = nullptr;  // who waits for kReady
  Identity given_;                        // token and environment, by whoever started it
  bool is_child_ = false;                 // of a fork of another sandbox
  std::optional<Newborn> newborn_;        // in a child of a fork of this one
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_H_
