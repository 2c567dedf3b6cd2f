#ifndef CUBE_VMM_CLI_TEMPLATE_CACHE_H_
#define CUBE_VMM_CLI_TEMPLATE_CACHE_H_

#include <optional>
#include <string>

#include "base/result.h"
#include "snapshot/snapshot.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/run_options.h"
#include "vmm/machine.h"

namespace cube::vmm {

// The folder of Cube's files: $CUBE_HOME, or /var/lib/cube.
std::string CubeHome();

// The control socket of the sandbox with that id, and its log.
std::string ControlPath(const std::string& id);
std::string LogPath(const std::string& id);

// Templates that `cube-vmm run` makes for itself: one for each kernel, initrd and machine it was
// asked for, under CubeHome()/templates. Made the first time, cloned from then on.
class TemplateCache {
 public:
  // For that run; nothing of it is a template's if it cannot be shared.
  TemplateCache(const RunOptions& options, Ring0Mode ring0);

  // Where the template is or would be; empty if this run can have none.
  const std::string& path() const { return path_; }
  // The template, if there is a usable one. What is there but damaged is deleted.
  std::optional<snapshot::Snapshot> Find() const;
  // Freezes `machine`, which has been stopped where its agent parked.
  Status Build(const Kvm& kvm, const MachineConfig& config, Machine* machine) const;

 private:
  std::string path_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_CACHE_H_
