#ifndef CUBE_VMM_CLI_REHEARSAL_H_
#define CUBE_VMM_CLI_REHEARSAL_H_

#include <optional>
#include <vector>

#include "base/result.h"
#include "snapshot/memory_file.h"
#include "snapshot/snapshot.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine.h"
#include "vmm/ring0/ring0_caches.h"

namespace cube::vmm {

// What a clone of a template is known to do before it is ready, all clones doing the same: one has
// been run, as nobody, and thrown away.
struct Rehearsal {
  // What the ring-0 engine decoded; none if there is no engine.
  std::optional<ring0::Ring0Caches> caches;
  // The pages that were written, runs of the memory's image.
  std::vector<snapshot::PageRun> written;

  // Runs a clone of `base`, frozen at its parking place, in this process until it is ready.
  // `config` and `devices` are those that its clones have; the devices work on `loop`, which does
  // nothing else and is of no use after. Errors: it is not ready in some seconds, or whatever else
  // would keep a clone from it.
  static Result<Rehearsal> Run(const Kvm& kvm, const snapshot::Snapshot& base,
                               const MachineConfig& config, std::vector<NamedDevice> devices,
                               EventLoop* loop);
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_REHEARSAL_H_
