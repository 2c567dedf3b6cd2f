#ifndef CUBE_POOL_LAUNCHER_H_
#define CUBE_POOL_LAUNCHER_H_

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pool/async.h"
#include "pool/outcome.h"
#include "pool/process_handle.h"
#include "pool/records.h"

namespace cube::pool {

struct ZygoteSpec {
  std::string folder;  // the template's
  std::string name;    // no other zygote's, "zygote-" and more
};

struct RestoreSpec {
  std::string folder;  // the snapshot's
  std::string id;      // of the sandbox that goes on from it
};

// A request to a zygote: a line and the descriptors that go with it.
struct CloneRequest {
  std::string id;  // of the clone; to be forgotten (Launcher::Forget) if there will be none
  std::string line;
  std::vector<UniqueFd> descriptors;
};

// How the node's processes are started and what each of them may do. Everything that a jail
// (namespaces, cgroups, uids, networks) has to know of a process's life comes by here; what the
// processes do then is the same whoever started them.
//
// Processes outlive the daemon: they are sessions of their own, and hold nothing of it.
class Launcher {
 public:
  virtual ~Launcher() = default;

  // Starts the zygote of a template (vmm/cli/zygote_command.h). It listens at ZygoteSocket() once
  // this returns.
  virtual Task<Outcome<ProcessHandle>> StartZygote(ZygoteSpec spec) = 0;
  // It has ended, or is to: what is its own goes, and so do clones of it that nobody was told of.
  virtual void ForgetZygote(const std::string& name) = 0;
  // Starts a machine from a snapshot, parked: it waits for {"op":"start"} at ControlPath(id).
  virtual Task<Outcome<ProcessHandle>> Restore(RestoreSpec spec) = 0;
  // What a zygote is asked for a clone with.
  virtual Outcome<CloneRequest> PrepareClone(const std::string& zygote) = 0;
  // Whether a machine may be asked to fork itself. If not, its snapshot is restored.
  virtual bool CanFork() const = 0;

  // Before the sandbox's vCPUs run: it gets no more than `limits` from here on. The process may
  // have been parked for long, or be one that has survived the daemon.
  virtual Outcome<Done> Confine(const std::string& id, const ProcessHandle& process,
                                const Limits& limits) = 0;
  // The process has ended, `id` may have another later; its log stays.
  virtual void Rest(const std::string& id) = 0;
  // `id` will not be used again: what was its own on the host goes, processes, log and sockets.
  virtual void Forget(const std::string& id) = 0;
  // The process has ended by itself: why, as far as its surroundings tell; else "".
  virtual std::string WhyEnded(const std::string& id, const ProcessHandle& process) const = 0;

  // The folder of a volume, to be handed to the machine `id`: as what it writes there belongs to
  // the folder's owner, others that have the volume can read and write it as well.
  virtual Outcome<UniqueFd> OpenVolume(const std::string& id, const std::string& folder) const = 0;

  // Where the machine `id` is to write the snapshot that will be at `path`.
  virtual std::string WritePath(const std::string& id, const std::string& path) const = 0;
  // It has written it: now it is at `path`, as durable as it was. An error if it is not what a
  // machine whose memory builds on the snapshot `base` can have written. Nothing if it is there.
  virtual Outcome<Done> Collect(const std::string& id, const std::string& path,
                                const std::string& base) = 0;
  // Makes the snapshot in `folder` visible to a machine that runs.
  virtual Task<Outcome<Done>> Show(const ProcessHandle& process, std::string folder) = 0;

  virtual std::string ZygoteSocket(const std::string& name) const = 0;
  // Where things of a sandbox are on the host. Machines may put links there: they are
  // opened by OpenNoLinks() only.
  virtual std::string ControlPath(const std::string& id) const = 0;
  virtual std::string LogPath(const std::string& id) const = 0;
  virtual std::string VsockPath(const std::string& id) const = 0;

  // Whether something that was forgotten is not gone yet.
  virtual bool IsForgetting() const = 0;
  // The daemon ends: what nobody needs without it goes.
  virtual void Close() = 0;
  // Everything that runs here and was started by this node, by this daemon or one before it.
  virtual std::vector<ProcessHandle> FindAll() const = 0;
  // Ids of sandboxes of which anything is left on the host, be it a file.
  virtual std::vector<std::string> FindIds() const = 0;
  // The same of zygotes' names.
  virtual std::vector<std::string> FindZygotes() const = 0;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_LAUNCHER_H_
