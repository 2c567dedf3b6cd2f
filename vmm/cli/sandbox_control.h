#ifndef CUBE_VMM_CLI_SANDBOX_CONTROL_H_
#define CUBE_VMM_CLI_SANDBOX_CONTROL_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/json_writer.h"
#include "base/result.h"
#include "snapshot/snapshot.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/machine.h"

namespace cube::vmm {

// What can be done to a running sandbox from outside, by its control socket: requests are objects
// with "op", answers have "ok" and, if false, "error". On the event loop's thread.
//
//   {"op":"info"}
//   {"op":"pause"}  {"op":"resume"}
//   {"op":"snapshot","path":P,"diff":true|false,"durable":true|false}
//   {"op":"rollback","path":P}
//   {"op":"stop"}
class SandboxControl {
 public:
  struct Owner {
    const Kvm* kvm;
    const MachineConfig* config;
    std::function<Machine*()> machine;
    // The guest's memory and devices are those of a snapshot again; the vCPUs are still stopped.
    std::function<Status()> rolled_back;
    // Ends the process, after the answer was sent.
    std::function<void()> stop;
    // An operation that this class does not know: its answer, or nothing if that is sent later.
    std::function<Result<std::string>(const ControlRequest&, ControlConnection* from)> other;
  };

  // `base` is what the machine was cloned from; null if it was booted.
  SandboxControl(EventLoop* loop, Owner owner, std::shared_ptr<const snapshot::Snapshot> base);
  ~SandboxControl();

  ControlServer& server() { return server_; }
  void SetBase(std::shared_ptr<const snapshot::Snapshot> base) { base_ = std::move(base); }
  void SetId(std::string id) { id_ = std::move(id); }

 private:
  // A process that writes a snapshot from its copy of the guest's memory while the guest goes on.
  struct Writer;

  void OnRequest(ControlConnection* from, const std::string& line);
  Result<std::string> Carry(const ControlRequest& request, ControlConnection* from);
  Status TakeSnapshot(const ControlRequest& request, ControlConnection* from);
  Status Rollback(const std::string& path);
  void OnWriterDone(int fd);
  std::string Info() const;

  EventLoop* loop_;
  Owner owner_;
  std::shared_ptr<const snapshot::Snapshot> base_;
  std::string id_;
  ControlServer server_;
  bool paused_ = false;
  std::map<int, Writer> writers_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_SANDBOX_CONTROL_H_
