#include "vmm/kvm/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

namespace cube::vmm {
namespace {

constexpr int kApiVersion = 12;
constexpr uint32_t kMaxCpuidEntries = 256;

}  // namespace

Result<Kvm> Kvm::Open(const std::string& path) {
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR));
  int version = ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version < 0) return ErrnoError("%s does not answer as KVM", path.c_str());
  if (version != kApiVersion) {
    return Errorf("%s speaks KVM API version %d, this needs %d", path.c_str(), version, kApiVersion);
  }
  int size = ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < static_cast<int>(sizeof(kvm_run))) return ErrnoError("KVM_GET_VCPU_MMAP_SIZE: %d", size);
  return Kvm(std::move(fd), size);
}

int Kvm::CheckExtension(int capability) const {
  int value = ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
  return value < 0 ? 0 : value;
}

Result<std::vector<kvm_cpuid_entry2>> Kvm::SupportedCpuid() const {
  if (!supported_cpuid_.empty()) return supported_cpuid_;
  std::vector<uint8_t> buffer(sizeof(kvm_cpuid2) + kMaxCpuidEntries * sizeof(kvm_cpuid_entry2));
  auto* cpuid = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  cpuid->nent = kMaxCpuidEntries;
  if (ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
    return ErrnoError("KVM_GET_SUPPORTED_CPUID");
  }
  supported_cpuid_.assign(cpuid->entries, cpuid->entries + cpuid->nent);
  return supported_cpuid_;
}

Result<std::vector<uint32_t>> Kvm::MsrIndices() const {
  kvm_msr_list count = {};
  // Fails with E2BIG, and says how many there are.
  if (ioctl(fd_.get(), KVM_GET_MSR_INDEX_LIST, &count) < 0 && errno != E2BIG) {
    return ErrnoError("KVM_GET_MSR_INDEX_LIST");
  }
  std::vector<uint32_t> buffer(1 + count.nmsrs);
  auto* list = reinterpret_cast<kvm_msr_list*>(buffer.data());
  list->nmsrs = count.nmsrs;
  if (ioctl(fd_.get(), KVM_GET_MSR_INDEX_LIST, list) < 0) {
    return ErrnoError("KVM_GET_MSR_INDEX_LIST");
  }
  return std::vector<uint32_t>(list->indices, list->indices + list->nmsrs);
}

Result<KvmVm> Kvm::CreateVm() const {
  int fd;
  // A signal that arrives while KVM waits for its own set-up interrupts it without consequence.
  do {
    fd = ioctl(fd_.get(), KVM_CREATE_VM, 0);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoError("KVM_CREATE_VM");
  return KvmVm(UniqueFd(fd), vcpu_mmap_size_);
}

}  // namespace cube::vmm
