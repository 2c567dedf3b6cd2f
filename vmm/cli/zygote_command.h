#ifndef CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
#define CUBE_VMM_CLI_ZYGOTE_COMMAND_H_

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
  std::shared_ptr<const snapshot::Snapshot> base;
  std::optional<Kvm> kvm;
  Ring0Mode ring0 = Ring0Mode::kNative;
};

// `cube-vmm zygote TEMPLATE --socket PATH`: opens the template once, and forks a clone of it for
// each request. No exec and no parsing lie between a request and a parked clone.
//
//   {"op":"clone"}  answered, once the clone is parked: {"ok":true,"id":ID,"pid":N,"ms":{...}}
//   {"op":"stop"}
//
// A clone has a control socket of its own (sandbox_control.h), which knows
//   {"op":"start","environment":["NAME=VALUE",...],"token":T}  answered when the agent is READY.
// Clones outlive the zygote. Returns the process's exit status.
int ZygoteCommand(const std::string& path, const std::string& socket, const std::string& kvm);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
