#ifndef CUBE_VMM_KVM_KVM_H_
#define CUBE_VMM_KVM_KVM_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_vm.h"

namespace cube::vmm {

// The /dev/kvm system handle (KVM API section 4, "system ioctl").
class Kvm {
 public:
  // Opens `path` and checks that it speaks API version 12, the only one since Linux 2.6.22.
  static Result<Kvm> Open(const std::string& path = "/dev/kvm");

  // KVM_CHECK_EXTENSION (4.4): 0 if the capability is absent.
  int CheckExtension(int capability) const;
  // KVM_GET_VCPU_MMAP_SIZE (4.5), bytes.
  int vcpu_mmap_size() const { return vcpu_mmap_size_; }
  // KVM_GET_SUPPORTED_CPUID (4.46). Asked for once, by one thread at a time: processes that are forked
  // later have the answer too.
  Result<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;
  // KVM_GET_MSR_INDEX_LIST (4.3): the MSRs that make up a vCPU's state.
  Result<std::vector<uint32_t>> MsrIndices() const;
  // KVM_CREATE_VM (4.2) of the default type.
  Result<KvmVm> CreateVm() const;

  int fd() const { return fd_.get(); }

 private:
  Kvm(UniqueFd fd, int vcpu_mmap_size) : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}

  UniqueFd fd_;
  int vcpu_mmap_size_;
  mutable std::vector<kvm_cpuid_entry2> supported_cpuid_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_KVM_KVM_H_
