#ifndef CUBE_VMM_CLI_PREPARED_H_
#define CUBE_VMM_CLI_PREPARED_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/blk/disk.h"
#include "snapshot/snapshot.h"
#include "vmm/cli/rehearsal.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine.h"

namespace cube::vmm {

// What a process finds out once and its clones need not: opened, parsed, probed.
struct Prepared {
  // A machine that ran in the process which forked this one, and what its devices were.
  struct Inherited {
    Machine::Inheritance machine;
    MachineState state;
    snapshot::Hardware hardware;
    std::vector<::cube::devices::blk::DiskStack> disks;
  };

  std::shared_ptr<const snapshot::Snapshot> base;  // null: nothing is cloned
  std::optional<Kvm> kvm;
  Ring0Mode ring0 = Ring0Mode::kNative;
  std::optional<Inherited> inherited;  // goes on here, instead of a clone of `base`
  // Who waits for this process's sandbox hears here that it is there, or why it is not.
  UniqueFd report;
  std::optional<Rehearsal> rehearsal;
};

// Opens KVM's device `kvm` and the snapshot `path` ("" for none), and finds out who runs ring 0
// here; `ring0` is the option's value: "auto", "kvm" or "engine". With `lost` the snapshot is opened
// lazily (Snapshot::OpenLazily).
Result<Prepared> PrepareHost(const std::string& kvm, const std::string& path,
                             const std::string& ring0,
                             const snapshot::LazyServer::Failed& lost = nullptr);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_PREPARED_H_
