#ifndef CUBE_VMM_CLI_TEMPLATE_CACHE_H_
#define CUBE_VMM_CLI_TEMPLATE_CACHE_H_

#include <optional>
#include <string>

#include "base/result.h"
#include "snapshot/snapshot.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/run_options.h"
#include "vmm/machine.h"

namespace cube::vmm {

// Templates that `cube-vmm run` makes for itself: one for each kernel, initrd and machine it was
// asked for, under CubeHome()/templates. Made the first time, cloned from then on.
class TemplateCache {
 public:
  // For that run; nothing of it is a template's if it cannot be shared.
  TemplateCache(const RunOptions& options, Ring0Mode ring0);
  // The one in that folder, which no run looks for.
  explicit TemplateCache(std::string path) : path_(std::move(path)) {}

  // Where the template is or would be; empty if this run can have none.
  const std::string& path() const { return path_; }
  // The template, if there is a usable one. What is there but damaged is deleted.
  std::optional<snapshot::Snapshot> Find() const;
  // Freezes `machine`, which has been stopped where its agent parked.
  // `durable`: it is on the disk when this returns.
  Status Build(const Kvm& kvm, const MachineConfig& config, const snapshot::Hardware& hardware,
               const snapshot::Defaults& defaults, Machine* machine, bool durable) const;

 private:
  std::string path_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_CACHE_H_
