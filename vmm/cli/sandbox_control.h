#ifndef CUBE_VMM_CLI_SANDBOX_CONTROL_H_
#define CUBE_VMM_CLI_SANDBOX_CONTROL_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/disk.h"
#include "snapshot/snapshot.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/cli/sandbox_forks.h"
#include "vmm/machine.h"

namespace cube::vmm {

// A machine between two instructions, without its memory.
struct Frozen {
  MachineState state;
  std::vector<::cube::devices::blk::DiskStack> disks;
};

// What a child of a fork of a sandbox begins with.
struct Newborn {
  Frozen machine;      // what it has inherited, beside the memory
  UniqueFd report;     // where it says that it is ready (SandboxForks), or why it will not be
  uint64_t asked = 0;  // when the fork was asked for, CLOCK_MONOTONIC nanoseconds
  std::string id;      // what it is to be called; empty: a new one
  std::string token;   // its access token; may be empty
};

// What can be done to a running sandbox from outside, by its control socket: requests are objects
// with "op", answers have "ok" and, if false, "error". On the event loop's thread.
//
//   {"op":"info"}     "state" is "running", "paused" or, after a rollback that failed half-way,
//   "broken"
//   {"op":"pause"}  {"op":"resume"}
//   {"op":"snapshot","path":P,"diff":true|false,"durable":true|false}
//   {"op":"rollback","path":P}
//   {"op":"fork","count":N,"ids":[ID,...],"tokens":[T,...]}   without ids the clones have new ones,
//   without tokens none; what the parent's programs have in their environment theirs have, too
//   {"op":"plug"}     the descriptors that come with it are TAPs for the NICs, in their order
//   {"op":"stop"}
class SandboxControl {
 public:
  struct Owner {
    const Kvm* kvm;
    const MachineConfig* config;
    const snapshot::Hardware* hardware;
    std::function<Machine*()> machine;
    // The guest's memory and devices are those of a snapshot again; the vCPUs are still stopped.
    std::function<Status()> rolled_back;
    // Whether what the guest and this process have said to one another is whole in the guest's
    // memory.
    std::function<Status()> check_settled;
    // Whether the sandbox can be forked now.
    std::function<Status()> check_forkable;
    // In a child of a fork, which has nothing more to do with this one's machine and sockets.
    std::function<void(Newborn)> born;
    // Ends the process, after the answer was sent.
    std::function<void()> stop;
    // An operation that this class does not know: its answer, or nothing if that is sent later.
    std::function<Result<std::string>(const ControlRequest&, ControlConnection* from,
                                      std::vector<UniqueFd> descriptors)>
        other;
  };

  // `base` is what the machine was cloned from; null if it was booted.
  SandboxControl(EventLoop* loop, Owner owner, std::shared_ptr<const snapshot::Snapshot> base);
  ~SandboxControl();

  ControlServer& server() { return server_; }
  const std::shared_ptr<const snapshot::Snapshot>& base() const { return base_; }
  // The machine's memory, just written to the snapshot `path`, becomes a private mapping of it,
  // shared with its clones, and what differs from it can be told. Its vCPUs are stopped.
  Status BecomeCloneOf(const std::string& path);
  // Makes huge pages of some of the memory that the guest has filled, so that later snapshots and
  // forks stop it for no longer than if it had written little. True if there is more to be done.
  bool CollapseMemory();
  // `vsock`: where host clients find the guest; may be empty.
  void SetId(std::string id, std::string vsock) {
    id_ = std::move(id);
    vsock_ = std::move(vsock);
  }

 private:
  // A process that writes a snapshot from its copy of the guest's memory while the guest goes on.
  struct Writer;

  void OnRequest(ControlConnection* from, const std::string& line,
                 std::vector<UniqueFd> descriptors);
  Result<std::string> Carry(const ControlRequest& request, ControlConnection* from,
                            std::vector<UniqueFd> descriptors);
  // Forks this process while the vCPUs stand still, and lets them go on: the child's pid in the
  // parent, 0 in the child, which has the machine as it was then and begins when the parent's goes
  // on. `pause_ms`: how long it stood.
  Result<pid_t> ForkFrozen(Frozen* frozen, double* pause_ms);
  // While the vCPUs stand still. The devices go on by Machine::Resume().
  Result<Frozen> Freeze(Machine* machine);
  Status TakeSnapshot(const ControlRequest& request, ControlConnection* from);
  Result<std::string> SnapshotBooted(const std::string& path, bool durable);
  Status Fork(const ControlRequest& request, ControlConnection* from);
  Status Rollback(const std::string& path);
  // Memory, processors and devices of `target`, while the vCPUs stand still. After an error the
  // machine is neither the one nor the other.
  Status Load(const std::shared_ptr<const snapshot::Snapshot>& target);
  void OnWriterDone(int fd);
  void SquashLayers(const Writer& writer);
  std::string Info() const;

  EventLoop* loop_;
  Owner owner_;
  std::shared_ptr<const snapshot::Snapshot> base_;
  std::string id_;
  std::string vsock_;
  ControlServer server_;
  SandboxForks forks_;
  bool paused_ = false;
  std::string broken_;  // why the machine cannot go on, after a rollback that failed half-way
  std::map<int, Writer> writers_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_SANDBOX_CONTROL_H_
