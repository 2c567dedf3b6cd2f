#ifndef CUBE_POOL_SANDBOX_H_
#define CUBE_POOL_SANDBOX_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pool/node_context.h"
#include "pool/records.h"
#include "pool/vm.h"

namespace cube::pool {

// One sandbox: its state, its process while it has one, its time. Requests are carried out one
// after another, and each change of state is in the store before it is acknowledged. On one thread.
//
//   creating -> running <-> pausing -> paused <-> resuming -> running
//   running <-> snapshotting;  any -> killing -> gone;  a process that ends -> dead
class Sandbox : public std::enable_shared_from_this<Sandbox> {
 public:
  // `context` outlives the sandbox.
  Sandbox(NodeContext* context, SandboxRecord record);

  const SandboxRecord& record() const { return record_; }
  const std::string& id() const { return record_.id; }
  SandboxState state() const { return record_.state; }
  const std::shared_ptr<Vm>& vm() const { return vm_; }

  // Gives a parked machine its identity and lets it run; a failure leaves nothing behind but the
  // machine, which the caller ends.
  Task<Outcome<Done>> Begin(std::shared_ptr<Vm> vm, Capacity::Lease lease);
  // A machine that runs already: found by a new daemon, or made by a fork.
  Outcome<Done> Adopt(std::shared_ptr<Vm> vm);

  Task<Outcome<Done>> Pause();
  // `timeout`: seconds from now on, or as it had.
  Task<Outcome<Done>> Resume(std::optional<uint32_t> timeout);
  // Resumes it if it is paused; else only the timeout, if given, is set, unless that is sooner.
  Task<Outcome<Done>> Connect(std::optional<uint32_t> timeout);
  // Whatever it is doing. Afterwards it is gone.
  Task<Outcome<Done>> Kill();
  // In place of what a front end wrote there before. Survives the daemon.
  Task<Outcome<Done>> Annotate(std::string annotation);
  // What it may reach from now on.
  Task<Outcome<Done>> SetNetwork(net::Policy policy);
  // Leads a port of the host's to it, and again whenever it is resumed, if the port is free then.
  Task<Outcome<Done>> MapPort(net::PortMapping mapping);
  Task<Outcome<Done>> UnmapPort(uint8_t protocol, uint16_t host_port);
  // 0 seconds: at once.
  Task<Outcome<Done>> SetTimeout(uint32_t seconds);
  Task<Outcome<SnapshotRecord>> Snapshot(std::string name);
  // A snapshot at `path` that is needed for a moment only, and which no client is told of.
  Task<Outcome<SnapshotRecord>> SnapshotForFork(std::string path);
  Task<Outcome<Done>> Rollback(std::string snapshot);
  // Running sandboxes that go on from where this one is, one for each access token, which may be
  // empty. All or none.
  Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> Fork(std::vector<std::string> tokens);

  // A new daemon has found it on disk, and no machine that is wanted.
  Outcome<Done> FoundPaused();
  // A new daemon has found the machine gone.
  void FoundDead(const std::string& reason);
  // What a daemon that died has begun is ended: pausing is completed, all else undone.
  Task<void> Recover();

 private:
  // Into the store; on failure everything is as it was before.
  Outcome<Done> Enter(SandboxState state, Durability durability = Durability::kSoft);
  Outcome<Done> Require(SandboxState state) const;
  void Watch();
  void ArmTimer(uint32_t seconds);
  void SetTimer();
  Task<void> OnDeadline();
  Task<void> OnExit();
  void Die(const std::string& reason);
  std::string ReasonOfDeath() const;
  std::string StartRequest() const;
  std::string SnapshotRequest(const std::string& path, bool durable = true);
  Task<Outcome<Done>> WriteLocked(SnapshotRecord about, bool durable);
  Outcome<Done> Settle(const std::shared_ptr<Vm>& vm);
  // Its policy is in force from here on: a TAP for a machine that is about to start; none if the
  // node has no network.
  Outcome<std::vector<UniqueFd>> AttachNetwork();
  // What goes with a request to start: that, and the folders of its volumes.
  Outcome<std::vector<UniqueFd>> StartDescriptors();
  // With the lock held.
  Task<Outcome<Done>> PauseLocked();
  Task<Outcome<Done>> ResumeLocked(std::optional<uint32_t> timeout);
  Task<Outcome<Done>> RestoreLocked();
  Task<void> BackToRunning();
  SnapshotRecord Describe(const std::string& path) const;
  Task<Outcome<Done>> PlugIn();
  Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> AdoptClones(std::vector<std::string> ids,
                                                                   std::vector<std::string> tokens);

  NodeContext* context_;
  SandboxRecord record_;
  AsyncLock lock_;
  std::shared_ptr<Vm> vm_;
  Capacity::Lease lease_;
  asio::steady_timer deadline_;
  bool killed_ = false;  // a kill has been asked for
};

}  // namespace cube::pool

#endif  // CUBE_POOL_SANDBOX_H_
