#include "vmm/cli/prepared.h"

#include "vmm/cli/host_verdict.h"

namespace cube::vmm {

Result<Prepared> PrepareHost(const std::string& kvm, const std::string& path,
                             const std::string& ring0,
                             const snapshot::LazyServer::Failed& lost) {
  Prepared prepared;
  CUBE_TRY(Vcpu::InstallKickSignal());
  CUBE_ASSIGN(prepared.kvm, Kvm::Open(kvm));
  CUBE_ASSIGN(bool emulated, EmulatesRing0(*prepared.kvm, kvm));
  if (!path.empty()) {
    CUBE_ASSIGN(snapshot::Snapshot opened, lost ? snapshot::Snapshot::OpenLazily(path, lost)
                                                : snapshot::Snapshot::Open(path));
    prepared.base = std::make_shared<const snapshot::Snapshot>(std::move(opened));
  }
  if (emulated) {
    prepared.ring0 = ring0 == "kvm" ? Ring0Mode::kEmulator : Ring0Mode::kEngine;
  } else if (ring0 == "engine") {
    return Errorf("--ring0=engine: this host's KVM runs ring 0 itself");
  }
  return prepared;
}

}  // namespace cube::vmm
