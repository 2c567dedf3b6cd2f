#ifndef CUBE_POOL_JAIL_CGROUPS_H_
#define CUBE_POOL_JAIL_CGROUPS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pool/process_handle.h"

namespace cube::pool {

// What the processes of one cgroup may use together; 0: no limit.
struct CgroupLimits {
  uint64_t memory_bytes = 0;
  double cpus = 0;                   // processors' worth of time
  uint32_t processes = 0;            // and threads
  uint64_t io_bytes_per_second = 0;  // each of reads and writes, of `io_device`
  dev_t io_device = 0;
};

// The node's cgroups, one for each sandbox and zygote: in the unified hierarchy where that has the
// controllers (memory, cpu, pids, and io if it is there), else one in each of version 1's. They
// lie at /cube/KEY/NAME, whatever cgroup the daemon is in, and outlive it.
class Cgroups {
 public:
  // An error names what the host lacks. `key`: of this node.
  static Result<Cgroups> Open(const std::string& key);

  // What tells the node with that home from others of the host.
  static std::string KeyOf(const std::string& home);
  // Removes the node's own, if nothing is in them.
  void Close() const;

  Status Create(const std::string& name, const CgroupLimits& limits);
  // Sets what is not 0.
  Status SetLimits(const std::string& name, const CgroupLimits& limits) const;
  // It runs when no other of the node's wants to, or as they do. An error on kernels before 5.15.
  Status SetBehind(const std::string& name, bool behind) const;
  // Of each hierarchy.
  std::vector<std::string> Folders(const std::string& name) const;
  // A process that writes "0" there belongs to it.
  Result<std::vector<UniqueFd>> OpenProcs(const std::string& name) const;

  // Names of all there are.
  std::vector<std::string> Names() const;
  // Without threads of the kernel's.
  std::vector<ProcessHandle> Processes(const std::string& name) const;
  // Ends what is in it. True once nothing is, and it is gone.
  bool Remove(const std::string& name) const;
  // How many of its processes were ended because it had no more memory.
  uint64_t MemoryKills(const std::string& name) const;
  // In bytes.
  uint64_t MemoryLimit(const std::string& name) const;

 private:
  struct Hierarchy {
    std::string controller;  // "" for the unified one
    std::string folder;      // the node's
  };

  Status Set(const Hierarchy& hierarchy, const std::string& name, const char* file,
             const std::string& value) const;
  bool IsUnified() const { return hierarchies_[0].controller.empty(); }

  std::vector<Hierarchy> hierarchies_;  // the first is that of pids
  bool has_io_ = false;                 // the unified one
};

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_CGROUPS_H_
