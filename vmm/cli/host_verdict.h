#ifndef CUBE_VMM_CLI_HOST_VERDICT_H_
#define CUBE_VMM_CLI_HOST_VERDICT_H_

#include <optional>
#include <string>

#include "base/result.h"
#include "vmm/kvm/kvm.h"

namespace cube::vmm {

// Whether the host's KVM emulates ring 0, which takes some milliseconds to find out (HostProbe) and
// does not change while the host runs: kept in a file, by the boot of the host, the KVM device and this
// program. What the file says of anything else, or in any other form, counts for nothing.
class HostVerdict {
 public:
  // `path` is the file; `device` that of KVM.
  HostVerdict(std::string path, const std::string& device);
  // The file of this node.
  static std::string DefaultPath();

  std::optional<bool> Load() const;
  // A verdict that cannot be kept is found out again: no error.
  void Store(bool emulated) const;

 private:
  std::string path_;
  std::string key_;  // empty: nothing is kept
};

// From the file, or else by running some code in a VM, and then kept.
Result<bool> EmulatesRing0(const Kvm& kvm, const std::string& device);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_HOST_VERDICT_H_
