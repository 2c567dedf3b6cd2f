#ifndef CUBE_VMM_CLI_PREPARED_H_
#define CUBE_VMM_CLI_PREPARED_H_

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "snapshot/snapshot.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine.h"

namespace cube::vmm {

// What a process finds out once and its clones need not: opened, parsed, probed.
struct Prepared {
  std::shared_ptr<const snapshot::Snapshot> base;  // null: nothing is cloned
  std::optional<Kvm> kvm;
  Ring0Mode ring0 = Ring0Mode::kNative;
};

// Opens KVM's device `kvm` and the snapshot `path` ("" for none), and finds out who runs ring 0
// here; `ring0` is the option's value: "auto", "kvm" or "engine".
Result<Prepared> PrepareHost(const std::string& kvm, const std::string& path,
                             const std::string& ring0);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_PREPARED_H_
